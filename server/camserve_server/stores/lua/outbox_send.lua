-- Sends an event to a webhook that exists. ARGV: now, webhook, event id, event and job, both '' to send one again.
-- Returns {1 or 0, endpoints to announce}.
local now, hook, event_id = clock(ARGV[1]), ARGV[2], ARGV[3]
if redis.call('EXISTS', webhook_key(hook)) == 0 then return {0, told} end
local known = redis.call('HMGET', delivery_key(hook, event_id), 'event', 'job')
if ARGV[4] == '' then
  if not known[1] then return {0, told} end
  enqueue(hook, event_id, known[1], known[2], now, true)
elseif not known[1] then
  enqueue(hook, event_id, ARGV[4], ARGV[5], now, true)
end
return {1, told}
