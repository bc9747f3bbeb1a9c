-- Gives the tenant that waited longest its turn and puts it last. KEYS[1]: the ring's prefix.
-- ARGV: now, worker, its width, its pace in items per 1000 s, age in ms at which a silent worker no longer counts.
-- Returns {tenant, version, tenants in the ring, width of all workers}; false while no tenant has work.
local prefix = KEYS[1]
local now = clock(ARGV[1])
local workers = prefix .. 'workers'
local width, own_ms = 0, 0
local known = redis.call('HGETALL', workers)
for at = 1, #known, 2 do
  local seen, of = string.match(known[at + 1], '^(%d+) (%d+)')
  if now - tonumber(seen) > tonumber(ARGV[5]) then
    redis.call('HDEL', workers, known[at])
  else
    width = width + tonumber(of)
    if known[at] == ARGV[2] then own_ms = tonumber(seen) end
  end
end
-- Not at every look: each write is a wait for the disk.
if now - own_ms > 1000 then
  redis.call('HSET', workers, ARGV[2], whole(now) .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
  if own_ms == 0 then width = width + tonumber(ARGV[3]) end
end
local first = redis.call('ZRANGE', prefix .. 'turns', 0, 0)[1]
if not first then return false end
local active = redis.call('ZCARD', prefix .. 'turns')
if active > 1 then redis.call('ZADD', prefix .. 'turns', redis.call('INCR', prefix .. 'turn'), first) end
return {first, redis.call('HGET', prefix .. 'versions', first), active, width}
