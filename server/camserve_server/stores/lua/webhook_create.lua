-- Registers a webhook. ARGV: now, webhook, most webhooks, sealed url, events by commas, sealed secret.
-- A second call with its id changes nothing. Returns its registration in ms, 0 for no room.
local now, id = clock(ARGV[1]), ARGV[2]
local key = webhook_key(id)
local created = redis.call('HGET', key, 'created_ms')
if not created then
  if redis.call('HLEN', hooks) >= tonumber(ARGV[3]) then return 0 end
  created = whole(now)
  redis.call('HSET', key, 'url', ARGV[4], 'events', ARGV[5], 'created_ms', created, 'secret', ARGV[6])
  redis.call('HSET', hooks, id, ARGV[5])
end
return tonumber(created)
