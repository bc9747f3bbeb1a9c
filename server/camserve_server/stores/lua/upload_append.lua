-- Adds a part to an upload that comes piece by piece. KEYS: the upload, its parts.
-- ARGV: the offset of the part's first byte, its object id, its bytes, most parts. Returns the new offset, -1 when the
-- upload is gone, -2 when what has come ends elsewhere, -3 for too many parts.
local known = redis.call('HMGET', KEYS[1], 'offset', 'last', 'expires_ms')
if not known[1] then return -1 end
if known[2] == ARGV[2] then return tonumber(known[1]) end -- sent again
if known[1] ~= ARGV[1] then return -2 end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[4]) then return -3 end
redis.call('HSET', KEYS[1], 'last', ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('PEXPIREAT', KEYS[2], known[3])
return redis.call('HINCRBY', KEYS[1], 'offset', ARGV[3])
