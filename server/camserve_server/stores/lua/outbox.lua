-- Events on their way to endpoints: webhooks, and places that jobs name as callback URLs. KEYS[1] is the tenant's prefix.
-- Goes before jobs.lua, so that a job's end and its event are one step.
local prefix = KEYS[1]
local endpoints, hooks = prefix .. 'endpoints', prefix .. 'hooks'
local KEPT_MS = 604800000
-- Of an endpoint: what comes beyond it is dead at once, and listed.
local MOST_WAITING = 100000
-- Endpoints that have something new: whoever runs the script announces them in the ring.
local told = {}

local function waiting_key(endpoint) return prefix .. 'outbox:' .. endpoint end
local function sending_key(endpoint) return prefix .. 'sending:' .. endpoint end
local function failing_key(endpoint) return prefix .. 'failing:' .. endpoint end
local function listed_key(endpoint) return prefix .. 'deliveries:' .. endpoint end
local function delivery_key(endpoint, event_id) return prefix .. 'delivery:' .. endpoint .. ':' .. event_id end
local function webhook_key(id) return prefix .. 'webhook:' .. id end

-- Ends a delivery; it is listed for a while longer, where it was: whoever reads page by page must not miss it.
local function settle(endpoint, event_id, status)
  local key, listed = delivery_key(endpoint, event_id), listed_key(endpoint)
  redis.call('HSET', key, 'status', status)
  redis.call('HDEL', key, 'next_ms')
  redis.call('PEXPIRE', key, KEPT_MS)
  redis.call('PEXPIRE', listed, KEPT_MS)
  redis.call('ZREM', waiting_key(endpoint), event_id)
  redis.call('ZREM', sending_key(endpoint), event_id)
end

-- Makes an event due at an endpoint, with all its attempts. What was asked for by name is sent to a disabled webhook too.
local function enqueue(endpoint, event_id, event, job, now, asked)
  local key, listed = delivery_key(endpoint, event_id), listed_key(endpoint)
  redis.call('HSET', key, 'event', event, 'job', job, 'status', 'pending', 'attempts', 0, 'next_ms', whole(now))
  redis.call('HDEL', key, 'last_status')
  if asked then redis.call('HSET', key, 'asked', 1) end
  -- Whoever sends it now is refused, and it goes out once more.
  redis.call('HINCRBY', key, 'fence', 1)
  redis.call('PERSIST', key)
  -- Records are kept from when an event is settled, and its attempts take days.
  redis.call('ZREMRANGEBYSCORE', listed, '-inf', whole(now - 2 * KEPT_MS))
  redis.call('ZADD', listed, whole(now), event_id)
  redis.call('PEXPIRE', listed, KEPT_MS)
  redis.call('ZREM', sending_key(endpoint), event_id)
  if redis.call('ZCARD', waiting_key(endpoint)) >= MOST_WAITING then return settle(endpoint, event_id, 'dead') end
  redis.call('ZADD', waiting_key(endpoint), whole(now), event_id)
  redis.call('SADD', endpoints, endpoint)
  told[#told + 1] = endpoint
end

-- Whether an endpoint is no longer there: a webhook that was deleted.
local function gone(endpoint)
  return string.sub(endpoint, 1, 3) ~= 'cb_' and redis.call('EXISTS', webhook_key(endpoint)) == 0
end

-- Whether an event is not for an endpoint any more: its webhook was disabled since.
local function unwanted(endpoint, event_id)
  return redis.call('HGET', hooks, endpoint) == '-' and not redis.call('HGET', delivery_key(endpoint, event_id), 'asked')
end

-- How many attempts an endpoint gets at once: one while it fails, so that it holds up little when it does not answer.
local function width(endpoint)
  return tonumber(redis.call('GET', failing_key(endpoint)) or '0') >= 3 and 1 or 4
end

-- When to look at an endpoint again, in ms since 1970; 0 for never.
local function next_due(endpoint)
  local sending = redis.call('ZRANGE', sending_key(endpoint), 0, 0, 'WITHSCORES')
  local waiting = redis.call('ZRANGE', waiting_key(endpoint), 0, 0, 'WITHSCORES')
  local lost, due = tonumber(sending[2] or '0'), tonumber(waiting[2] or '0')
  if lost == 0 and due == 0 then
    redis.call('SREM', endpoints, endpoint)
    return 0
  end
  if due == 0 or redis.call('ZCARD', sending_key(endpoint)) >= width(endpoint) then return lost end
  return lost > 0 and math.min(lost, due) or due
end
