-- Says when an endpoint is due again, unless something came since. KEYS[1]: the ring's prefix.
-- ARGV: member, version, time in ms, 0 for never.
local due, versions = KEYS[1] .. 'outbox', KEYS[1] .. 'outbox:versions'
if (redis.call('HGET', versions, ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] ~= '0' then return redis.call('ZADD', due, ARGV[3], ARGV[1]) end
redis.call('HDEL', versions, ARGV[1])
return redis.call('ZREM', due, ARGV[1])
