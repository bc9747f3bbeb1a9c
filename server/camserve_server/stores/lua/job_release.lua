-- Hands an item back. ARGV: now, job, index, fence, delay in ms before it may be claimed, 1 when the claim counts.
-- Returns 1, or 0 when the lease is no longer the caller's.
local now, job, index = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local items, name = items_key(job), member(job, index)
local known = redis.call('HMGET', items, 's:' .. index, 'f:' .. index)
if known[1] ~= 'r' or known[2] ~= ARGV[4] then return 0 end
if ARGV[6] ~= '1' then redis.call('HINCRBY', items, 'c:' .. index, -1) end
-- A fence that nobody holds: what the caller still sends is refused.
redis.call('HSET', items, 'f:' .. index, redis.call('INCR', fences))
if tonumber(ARGV[5]) > 0 then
  redis.call('ZADD', leases, whole(now + tonumber(ARGV[5])), name)
else
  redis.call('ZREM', leases, name)
  redis.call('HSET', items, 's:' .. index, 'q')
  redis.call('LPUSH', queue, name)
end
return 1
