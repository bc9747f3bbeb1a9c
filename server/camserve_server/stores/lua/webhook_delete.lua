-- Removes a webhook; what waits for it goes when a courier looks. ARGV: webhook. Returns 0 for an unknown one.
local id = ARGV[1]
if redis.call('DEL', webhook_key(id)) == 0 then return 0 end
redis.call('HDEL', hooks, id)
redis.call('DEL', listed_key(id), failing_key(id))
return 1
