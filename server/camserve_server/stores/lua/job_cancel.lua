-- Cancels a job that has not ended. ARGV: now, job.
-- Returns {status before, specs of the items that will never run, endpoints to announce}; false for an unknown job.
local now, job = clock(ARGV[1]), ARGV[2]
local going = goes_on(job, now)
local status = redis.call('HGET', job_key(job), 'status')
if not status then return false end
if not going then return {status, {}, told} end
finalize(job, 'canceled', now)
local items, specs = items_key(job), {}
for index = 0, redis.call('HGET', job_key(job), 'items') - 1 do
  local spec = redis.call('HGET', items, 'i:' .. index)
  if spec then
    specs[#specs + 1] = spec
    redis.call('HDEL', items, 'i:' .. index)
    redis.call('ZREM', leases, member(job, index))
  end
end
return {status, specs, told}
