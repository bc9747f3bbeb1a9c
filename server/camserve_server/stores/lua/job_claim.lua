-- Takes items from the front of a tenant's queue under leases.
-- ARGV: now, items wanted, lease in ms, most leases of the tenant, most claims of an item, result of a poison item,
-- items for a tenant that has no lease, then each "model version" that the worker leaves to others.
-- Returns {items, length of the queue, leases, endpoints to announce}; an item is {job, index, fence, claims, spec, expiry in ms, trace}.
local now, wanted, cap, most_claims = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local until_ms = whole(now + tonumber(ARGV[3]))

-- Leases that ran out first: their items go to the front again, in their order.
local lost = redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', 0, 256)
table.sort(lost)
for position = #lost, 1, -1 do
  local name = lost[position]
  redis.call('ZREM', leases, name)
  local job, index = parts(name)
  local known = redis.call('HMGET', job_key(job), 'status', 'expires_ms', 'items', 'succeeded', 'failed')
  if goes_on(job, now, known) then
    local items = items_key(job)
    if tonumber(redis.call('HGET', items, 'c:' .. index) or '0') >= most_claims then
      record(job, index, 'f', ARGV[6], now, known)
    else
      redis.call('HSET', items, 's:' .. index, 'q')
      redis.call('LPUSH', queue, name)
    end
  end
end

local leave, left = {}, {}
for at = 8, #ARGV do leave[ARGV[at]] = true end
local claimed, leased, fence = {}, {}, nil
local held = redis.call('ZCARD', leases)
local room = math.min(wanted, cap - held)
if held == 0 then room = math.max(room, tonumber(ARGV[7])) end
local looks = 0
-- Past so many that are left to others a worker does not look: they are whose turn it is.
while #claimed < room and looks < 4096 and #left < 256 do
  looks = looks + 1
  local name = redis.call('LPOP', queue)
  if not name then break end
  local job, index = parts(name)
  local key, items = job_key(job), items_key(job)
  local known = redis.call('HMGET', key, 'status', 'expires_ms', 'items', 'model', 'model_version', 'trace')
  -- Items of jobs that were canceled or expired stay in the queue until they are met here.
  if goes_on(job, now, known) then
    local item = redis.call('HMGET', items, 's:' .. index, 'c:' .. index, 'i:' .. index)
    if item[1] == 'q' and leave[known[4] .. ' ' .. known[5]] then
      left[#left + 1] = name
    elseif item[1] == 'q' then
      fence = (fence or tonumber(redis.call('GET', fences) or '0')) + 1
      local claims = tonumber(item[2] or '0') + 1
      redis.call('HSET', items, 's:' .. index, 'r', 'f:' .. index, whole(fence), 'c:' .. index, claims)
      leased[#leased + 1], leased[#leased + 2] = until_ms, name
      if known[1] == 'queued' then redis.call('HSET', key, 'status', 'running', 'started_ms', whole(now)) end
      claimed[#claimed + 1] = {job, index, fence, claims, item[3], tonumber(known[2]), known[6] or ''}
    end
  end
end
-- Once for all of them; as many at a time as Lua passes on.
if fence then redis.call('SET', fences, whole(fence)) end
for at = 1, #leased, 2000 do redis.call('ZADD', leases, unpack(leased, at, math.min(at + 1999, #leased))) end
for position = #left, 1, -1 do redis.call('LPUSH', queue, left[position]) end
return {claimed, redis.call('LLEN', queue), redis.call('ZCARD', leases), told}
