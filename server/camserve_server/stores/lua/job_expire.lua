-- Ends a job whose time is over and removes its items; removes the record itself once it was kept long enough.
-- ARGV: now, job, how long the record is kept in ms.
-- Returns {when to come again in ms since 1970, 0 for never; endpoints to announce}.
local now, job = clock(ARGV[1]), ARGV[2]
local key = job_key(job)
local known = redis.call('HMGET', key, 'status', 'expires_ms')
if not known[1] then return {0, told} end
local expires, kept_until = tonumber(known[2]), tonumber(known[2]) + tonumber(ARGV[3])
if now < expires then return {expires, told} end
goes_on(job, now)
redis.call('DEL', items_key(job), done_key(job))
redis.call('HSET', key, 'removed', 1)
if now < kept_until then return {kept_until, told} end
redis.call('DEL', key)
redis.call('ZREM', jobs, job)
return {0, told}
