-- Gives a client a new secret; the one before it works for a while. KEYS[1]: the client's record.
-- ARGV: now, tenant, digest of the new secret, how long in ms. Returns 0 when the tenant has no such client.
-- A second call with the digest changes nothing.
local known = redis.call('HMGET', KEYS[1], 'tenant', 'secret_sha256')
if known[1] ~= ARGV[2] then return 0 end
if known[2] == ARGV[3] then return 1 end
redis.call('HSET', KEYS[1], 'secret_sha256', ARGV[3], 'before_sha256', known[2],
  'before_until_ms', whole(clock(ARGV[1]) + tonumber(ARGV[4])))
return 1
