-- Records outcomes, each only for the holder of its item's present lease.
-- ARGV: now, then job, index, fence, state (s or f) and result of every outcome.
-- Returns {answers, endpoints to announce}: for each 1 when it is recorded, now or by an earlier copy of this call, else 0.
local now = clock(ARGV[1])
local answers, over = {}, {}
for at = 2, #ARGV, 5 do
  local job, index, fence = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local items = items_key(job)
  local known = redis.call('HMGET', items, 's:' .. index, 'f:' .. index)
  local recorded = 0
  if known[2] == fence then
    if known[1] == 's' or known[1] == 'f' then
      recorded = 1
    elseif known[1] == 'r' then
      over[#over + 1] = member(job, index)
      local state = redis.call('HMGET', job_key(job), 'status', 'expires_ms', 'items', 'succeeded', 'failed')
      if goes_on(job, now, state) then
        record(job, index, ARGV[at + 3], ARGV[at + 4], now, state)
        recorded = 1
      end
    end
  end
  answers[#answers + 1] = recorded
end
for at = 1, #over, 2000 do redis.call('ZREM', leases, unpack(over, at, math.min(at + 1999, #over))) end
return {answers, told}
