-- Accepts a job once: a second call with its id changes nothing.
-- ARGV: now, job, lifetime in ms, model, version, metadata, endpoint and sealed URL of the callback, attempt,
-- trace, packed metadata, then id and sealed spec of every item.
-- Returns 1 when it is this attempt that was accepted.
local now, job = clock(ARGV[1]), ARGV[2]
local key, items = job_key(job), items_key(job)
local accepted = redis.call('HGET', key, 'attempt')
if accepted then return accepted == ARGV[9] and 1 or 0 end
local count = (#ARGV - 11) / 2
redis.call('HSET', key, 'status', 'queued', 'submitted_ms', whole(now), 'expires_ms', whole(now + tonumber(ARGV[3])),
  'model', ARGV[4], 'model_version', ARGV[5], 'attempt', ARGV[9], 'items', count, 'succeeded', 0, 'failed', 0)
if ARGV[10] ~= '' then redis.call('HSET', key, 'trace', ARGV[10]) end
if ARGV[6] ~= '' then redis.call('HSET', key, 'metadata', ARGV[6], 'metadata_packed', ARGV[11]) end
if ARGV[7] ~= '' then redis.call('HSET', key, 'callback_endpoint', ARGV[7], 'callback', ARGV[8]) end
for index = 0, count - 1 do
  redis.call('HSET', items, 'd:' .. index, ARGV[12 + 2 * index], 'i:' .. index, ARGV[13 + 2 * index], 's:' .. index, 'q')
  redis.call('RPUSH', queue, member(job, index))
end
redis.call('ZADD', jobs, whole(now), job)
return 1
