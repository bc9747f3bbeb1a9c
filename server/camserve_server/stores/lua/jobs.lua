-- What the scripts of jobs share, after clock and outbox; the names below are those of keys.py.
local queue, leases, fences, jobs = prefix .. 'queue', prefix .. 'leases', prefix .. 'fences', prefix .. 'jobs'

local function job_key(job) return prefix .. 'job:' .. job end
local function items_key(job) return prefix .. 'job:' .. job .. ':items' end
local function done_key(job) return prefix .. 'job:' .. job .. ':done' end

local function live(status) return status == 'queued' or status == 'running' end

-- A member of queue and leases: the index is padded so that members sort in the order of the request.
local function member(job, index) return job .. ':' .. string.format('%03d', index) end

local function parts(name)
  local job, index = string.match(name, '^(.*):(%d+)$')
  return job, tonumber(index)
end

-- The only place that ends a job, so that a job ends once, and its event is there if and only if it has ended.
local function finalize(job, status, now)
  redis.call('HSET', job_key(job), 'status', status, 'completed_ms', whole(now))
  local event, event_id, filters = 'job.' .. status, 'evt' .. string.sub(job, 4), redis.call('HGETALL', hooks)
  for at = 1, #filters, 2 do
    local filter = filters[at + 1]
    if filter == '' or string.find(',' .. filter .. ',', ',' .. event .. ',', 1, true) then
      enqueue(filters[at], event_id, event, job, now)
    end
  end
  local callback = redis.call('HGET', job_key(job), 'callback_endpoint')
  if callback then enqueue(callback, event_id, event, job, now) end
end

-- Whether a job has not ended; one whose time is over ends here, whoever comes first.
-- `known` are its status, expires_ms and items, and may be more, for who has asked already.
local function goes_on(job, now, known)
  known = known or redis.call('HMGET', job_key(job), 'status', 'expires_ms', 'items')
  if not live(known[1]) then return false end
  if now < tonumber(known[2]) then return true end
  for index = 0, known[3] - 1 do redis.call('ZREM', leases, member(job, index)) end
  finalize(job, 'expired', now)
  return false
end

-- Records the outcome of an item of a running job, and the job's when it was the last one. `known` are the job's status,
-- expires_ms, items, succeeded and failed.
local function record(job, index, state, result, now, known)
  local key, items = job_key(job), items_key(job)
  redis.call('HSET', items, 's:' .. index, state, 'r:' .. index, result)
  redis.call('HDEL', items, 'i:' .. index)
  redis.call('RPUSH', done_key(job), index)
  redis.call('HINCRBY', key, state == 's' and 'succeeded' or 'failed', 1)
  if tonumber(known[4]) + tonumber(known[5]) + 1 == tonumber(known[3]) then
    local succeeded = state == 's' or tonumber(known[4]) > 0
    -- Why it failed outlives its items.
    if not succeeded then redis.call('HSET', key, 'error', redis.call('HGET', items, 'r:0')) end
    finalize(job, succeeded and 'succeeded' or 'failed', now)
  end
end
