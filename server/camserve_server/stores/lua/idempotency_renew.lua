-- Prolongs the lease of the call that holds the key. KEYS[1]: the key's record. ARGV: now, holder, lease in ms.
-- Returns 1, or 0 when the key is no longer the caller's.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until_ms', whole(clock(ARGV[1]) + tonumber(ARGV[3])))
return 1
