-- Frees a key without an answer. KEYS[1]: the key's record. ARGV: holder, 1 to forget that the call was ever made.
-- Returns 1, or 0 when the key is no longer the caller's.
local known = redis.call('HMGET', KEYS[1], 'holder', 'answer')
if known[1] ~= ARGV[1] or known[2] then return 0 end
if ARGV[2] == '1' then redis.call('DEL', KEYS[1]) else redis.call('HSET', KEYS[1], 'until_ms', 0) end
return 1
