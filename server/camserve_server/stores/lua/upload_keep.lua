-- Records an upload once, and ends the one that came piece by piece under its id. KEYS: the upload, the pending one, its parts.
-- ARGV: the record, its expiry in ms of unix time, 1 when there must be a pending one.
-- Returns the record that has the id, which is another when it came before; false when the pending one is gone.
local known = redis.call('GET', KEYS[1])
if known then return known end
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return false end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return ARGV[1]
