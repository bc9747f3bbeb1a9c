-- Takes due events of an endpoint under leases; what waits for a deleted or disabled webhook is given up, a part at a time.
-- ARGV: now, endpoint, events wanted, lease in ms.
-- Returns {events, when to look again}; an event is {id, name, job, attempt, fence, when it came, trace of the job}.
local now, endpoint = clock(ARGV[1]), ARGV[2]
local waiting, sending = waiting_key(endpoint), sending_key(endpoint)
for _, event_id in ipairs(redis.call('ZRANGEBYSCORE', sending, '-inf', whole(now))) do
  redis.call('ZREM', sending, event_id)
  redis.call('ZADD', waiting, whole(now), event_id)
end
if gone(endpoint) or redis.call('HGET', hooks, endpoint) == '-' then
  local some = redis.call('ZRANGE', waiting, 0, 499)
  for _, event_id in ipairs(some) do
    if gone(endpoint) then
      redis.call('ZREM', waiting, event_id)
      redis.call('DEL', delivery_key(endpoint, event_id))
    elseif unwanted(endpoint, event_id) then
      settle(endpoint, event_id, 'dead')
    end
  end
  if #some == 500 then return {{}, tonumber(whole(now))} end
end
local room = math.min(tonumber(ARGV[3]), width(endpoint) - redis.call('ZCARD', sending))
local claimed = {}
if room > 0 then
  for _, event_id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, room)) do
    local key = delivery_key(endpoint, event_id)
    local attempt, fence = redis.call('HINCRBY', key, 'attempts', 1), redis.call('HINCRBY', key, 'fence', 1)
    redis.call('ZREM', waiting, event_id)
    redis.call('ZADD', sending, whole(now + tonumber(ARGV[4])), event_id)
    local known = redis.call('HMGET', key, 'event', 'job')
    local trace = redis.call('HGET', prefix .. 'job:' .. known[2], 'trace')
    local came_ms = redis.call('ZSCORE', listed_key(endpoint), event_id) or whole(now)
    claimed[#claimed + 1] = {event_id, known[1], known[2], attempt, fence, tonumber(came_ms), trace or ''}
  end
end
return {claimed, next_due(endpoint)}
