-- Accepts a job once: a second call with its id changes nothing.
-- ARGV: now, job, lifetime in ms, model, version, metadata, endpoint and sealed URL of the callback,
-- then id and sealed spec of every item.
-- Returns {1 when accepted now, submission in ms, length of the queue}.
local now, job = clock(ARGV[1]), ARGV[2]
local key, items = job_key(job), items_key(job)
local before = redis.call('HGET', key, 'submitted_ms')
if before then return {0, tonumber(before), redis.call('LLEN', queue)} end
local count = (#ARGV - 8) / 2
redis.call('HSET', key, 'status', 'queued', 'submitted_ms', whole(now), 'expires_ms', whole(now + tonumber(ARGV[3])),
  'model', ARGV[4], 'model_version', ARGV[5], 'items', count, 'succeeded', 0, 'failed', 0)
if ARGV[6] ~= '' then redis.call('HSET', key, 'metadata', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', key, 'callback_endpoint', ARGV[7], 'callback', ARGV[8]) end
for index = 0, count - 1 do
  redis.call('HSET', items, 'd:' .. index, ARGV[9 + 2 * index], 'i:' .. index, ARGV[10 + 2 * index], 's:' .. index, 'q')
  redis.call('RPUSH', queue, member(job, index))
end
redis.call('ZADD', jobs, whole(now), job)
return {1, now, redis.call('LLEN', queue)}
