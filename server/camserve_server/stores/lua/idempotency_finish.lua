-- Keeps the answer of the call that holds the key. KEYS[1]: the key's record.
-- ARGV: holder, answer, how long the record is kept in ms. Returns 1, or 0 when the key is no longer the caller's.
local known = redis.call('HMGET', KEYS[1], 'holder', 'answer')
if known[1] ~= ARGV[1] then return 0 end
if not known[2] then
  redis.call('HSET', KEYS[1], 'answer', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
