-- Records an attempt, for the holder of the event's present lease only.
-- ARGV: now, endpoint, event id, fence, verdict, status of the answer or '', pause before the next attempt in ms.
-- The verdict is delivered, again, untried, dead or gone. Gone also disables the webhook; untried gives the attempt back, which
-- then says nothing of the endpoint.
-- Returns {1 when recorded, when to look again}.
local now, endpoint, event_id, verdict = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[5]
local key, hook = delivery_key(endpoint, event_id), webhook_key(endpoint)
local known = redis.call('HMGET', key, 'status', 'fence')
if gone(endpoint) then return {0, now} end
if known[1] ~= 'pending' or known[2] ~= ARGV[4] then return {0, next_due(endpoint)} end
if verdict == 'untried' then
  redis.call('HINCRBY', key, 'attempts', -1)
elseif ARGV[6] ~= '' then
  redis.call('HSET', key, 'last_status', ARGV[6])
else
  redis.call('HDEL', key, 'last_status')
end
local is_hook = redis.call('EXISTS', hook) == 1
if verdict == 'delivered' then
  settle(endpoint, event_id, 'delivered')
  redis.call('DEL', failing_key(endpoint))
  if is_hook and redis.call('HDEL', hook, 'disabled_ms') == 1 then
    redis.call('HSET', hooks, endpoint, redis.call('HGET', hook, 'events'))
  end
else
  if verdict ~= 'untried' then
    redis.call('INCR', failing_key(endpoint))
    redis.call('PEXPIRE', failing_key(endpoint), KEPT_MS)
  end
  if verdict == 'gone' and is_hook then
    redis.call('HSET', hook, 'disabled_ms', whole(now))
    redis.call('HSET', hooks, endpoint, '-')
  end
  if (verdict == 'again' or verdict == 'untried') and not unwanted(endpoint, event_id) then
    local due = whole(now + tonumber(ARGV[7]))
    redis.call('ZREM', sending_key(endpoint), event_id)
    redis.call('ZADD', waiting_key(endpoint), due, event_id)
    redis.call('HSET', key, 'next_ms', due)
  else
    settle(endpoint, event_id, 'dead')
  end
end
-- What waits for a webhook that was just disabled is given up at once, not when it is due.
return {1, verdict == 'gone' and now or next_due(endpoint)}
