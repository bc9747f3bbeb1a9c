-- Removes a webhook and what waits for it. ARGV: webhook. Returns 0 for an unknown one.
local id = ARGV[1]
if redis.call('DEL', webhook_key(id)) == 0 then return 0 end
redis.call('HDEL', hooks, id)
redis.call('SREM', endpoints, id)
for _, key in ipairs({waiting_key(id), sending_key(id)}) do
  for _, event_id in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('DEL', delivery_key(id, event_id)) end
  redis.call('DEL', key)
end
redis.call('DEL', listed_key(id), failing_key(id))
return 1
