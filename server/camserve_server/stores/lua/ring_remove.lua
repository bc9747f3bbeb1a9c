-- Takes a tenant without work out of the ring, unless work came since. KEYS[1]: the ring's prefix; ARGV: tenant, version.
local prefix = KEYS[1]
if redis.call('HGET', prefix .. 'versions', ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', prefix .. 'versions', ARGV[1])
return redis.call('ZREM', prefix .. 'turns', ARGV[1])
