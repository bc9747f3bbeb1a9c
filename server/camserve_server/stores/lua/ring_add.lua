-- Gives tenants with work a place in the ring. KEYS[1]: the ring's prefix; ARGV: the tenants.
-- The version tells a remover that work came after it looked; from a counter, so that none comes twice.
local prefix = KEYS[1]
for _, tenant in ipairs(ARGV) do
  redis.call('HSET', prefix .. 'versions', tenant, redis.call('INCR', prefix .. 'version'))
  if not redis.call('ZSCORE', prefix .. 'turns', tenant) then
    redis.call('ZADD', prefix .. 'turns', redis.call('INCR', prefix .. 'turn'), tenant)
  end
end
return #ARGV
