-- Records an upload once, ends the one that came piece by piece under its id, and marks the link that it came by as used.
-- KEYS: the upload, the pending one, its parts, what was promised of a link. ARGV: the record, its expiry in ms of unix
-- time, 1 when there must be a pending one, who uses the link. Returns the record that has the id, which is another when it came before;
-- false when the pending one is gone or the link was used for an image that is gone.
local known = redis.call('GET', KEYS[1])
if known then return known end
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then return false end
local promised = redis.call('GET', KEYS[4])
if promised then
  local presigned = cjson.decode(promised)
  if presigned.used_by and presigned.used_by ~= cjson.null then return false end
  presigned.used_by = ARGV[4]
  redis.call('SET', KEYS[4], cjson.encode(presigned), 'KEEPTTL')
end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return ARGV[1]
