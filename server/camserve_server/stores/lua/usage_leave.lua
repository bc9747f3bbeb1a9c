-- Ends a call. ARGV: call, 1 to give back the images that it was charged. Returns 1.
redis.call('ZREM', KEYS[2], ARGV[1])
local charged = redis.call('HGET', KEYS[1], ARGV[1])
if charged then
  redis.call('HDEL', KEYS[1], ARGV[1])
  if ARGV[2] == '1' then redis.call('HINCRBY', KEYS[1], 'used', -tonumber(charged)) end
end
return 1
