-- What the scripts of jobs share. KEYS[1] is the tenant's prefix; the names below are those of keys.py.
local prefix = KEYS[1]
local queue, leases, fences, jobs = prefix .. 'queue', prefix .. 'leases', prefix .. 'fences', prefix .. 'jobs'

local function job_key(job) return prefix .. 'job:' .. job end
local function items_key(job) return prefix .. 'job:' .. job .. ':items' end
local function done_key(job) return prefix .. 'job:' .. job .. ':done' end

-- Milliseconds since 1970; 0 asks for the server's clock, which all replicas share.
local function clock(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua writes large numbers with an exponent unless told otherwise.
local function whole(number) return string.format('%.0f', number) end

local function live(status) return status == 'queued' or status == 'running' end

-- A member of queue and leases: the index is padded so that members sort in the order of the request.
local function member(job, index) return job .. ':' .. string.format('%03d', index) end

local function parts(name)
  local job, index = string.match(name, '^(.*):(%d+)$')
  return job, tonumber(index)
end

-- The only place that ends a job, so that a job ends once.
local function finalize(job, status, now)
  redis.call('HSET', job_key(job), 'status', status, 'completed_ms', whole(now))
end

-- Records the outcome of an item of a running job, and the job's when it was the last one.
local function record(job, index, state, result, now)
  local key, items = job_key(job), items_key(job)
  redis.call('HSET', items, 's:' .. index, state, 'r:' .. index, result)
  redis.call('HDEL', items, 'i:' .. index)
  redis.call('RPUSH', done_key(job), index)
  redis.call('HINCRBY', key, state == 's' and 'succeeded' or 'failed', 1)
  local counts = redis.call('HMGET', key, 'items', 'succeeded', 'failed')
  if tonumber(counts[2]) + tonumber(counts[3]) == tonumber(counts[1]) then
    finalize(job, tonumber(counts[2]) > 0 and 'succeeded' or 'failed', now)
  end
end
