-- Prolongs leases. ARGV: now, lease in ms, then job, index and fence of every item.
-- Returns for each 1 when the lease is still the caller's, else 0.
local until_ms = whole(clock(ARGV[1]) + tonumber(ARGV[2]))
local answers = {}
for at = 3, #ARGV, 3 do
  local job, index = ARGV[at], tonumber(ARGV[at + 1])
  local known = redis.call('HMGET', items_key(job), 's:' .. index, 'f:' .. index)
  local held = 0
  if known[1] == 'r' and known[2] == ARGV[at + 2] and redis.call('HGET', job_key(job), 'status') == 'running' then
    redis.call('ZADD', leases, until_ms, member(job, index))
    held = 1
  end
  answers[#answers + 1] = held
end
return answers
