-- Lets a call run, and charges its images. ARGV: now, call, images, images of a day, concurrent calls, lease in ms.
-- A call that runs already is charged once more images, but never the same twice.
-- Returns {'ok'}, {'quota', ms until tomorrow} or {'concurrency'}.
local now, call, images = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local before = used(now)
local running = in_use(now)
if not redis.call('ZSCORE', KEYS[2], call) and running >= tonumber(ARGV[5]) then return { 'concurrency' } end
if images > 0 and redis.call('HEXISTS', KEYS[1], call) == 0 then
  if before + images > tonumber(ARGV[4]) then return { 'quota', until_tomorrow(now) } end
  redis.call('HINCRBY', KEYS[1], 'used', images)
  redis.call('HSET', KEYS[1], call, images)
end
redis.call('ZADD', KEYS[2], whole(now + tonumber(ARGV[6])), call)
redis.call('PEXPIRE', KEYS[2], 2 * tonumber(ARGV[6]))
return { 'ok' }
