-- Returns the endpoint that is longest due of the tenant whose turn it is, and its version, and puts it off so that another
-- courier takes another one; '' where none of those looked at has room; false while it is nobody's turn.
-- ARGV: now, by how many ms it is put off, how many ms each endpoint of a crowded origin adds to that, the most it comes to, how
-- many letters of an endpoint tell its origin, how many tenants have no room, those tenants, and each "origin tenant" that has
-- none.
local now, off, each, most = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local letters, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local full, crowded = {}, {}
for at = 7, 6 + count do full[ARGV[at]] = true end
for at = 7 + count, #ARGV do crowded[ARGV[at]] = true end
local tenant
for _, name in ipairs(redis.call('ZRANGEBYSCORE', tenants, '-inf', whole(now), 'LIMIT', 0, count + 1)) do
  if not full[name] then
    tenant = name
    break
  end
end
if not tenant then return false end

local function origin_of(endpoint) return string.sub(endpoint, 1, letters) end

-- About how many endpoints of each origin there are to look at within the longest time, from the hundred that come first.
local soon
local function count_soon()
  soon = {}
  local some = redis.call('ZRANGE', endpoints_of(tenant), 0, 99)
  local share = redis.call('ZCOUNT', endpoints_of(tenant), '-inf', whole(now + most)) / #some
  for _, endpoint in ipairs(some) do
    soon[origin_of(endpoint)] = (soon[origin_of(endpoint)] or 0) + share
  end
end

-- Thousands that wait for one origin's few places cost little when each is looked at seldom. They are spread over the time,
-- so that they do not come all at once, when most would find no room again; the server draws the same numbers in every script.
local function crowded_off(origin)
  if not soon then
    count_soon()
    math.randomseed(now % 1000003)
  end
  return math.max(off, math.min(most, each * (soon[origin] or 1)) * (1 + math.random()) / 2)
end

local found
for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', endpoints_of(tenant), '-inf', whole(now), 'LIMIT', 0, 100)) do
  local origin = origin_of(endpoint)
  local has_none = crowded[origin .. ' ' .. tenant]
  redis.call('ZADD', endpoints_of(tenant), whole(now + (has_none and crowded_off(origin) or off)), endpoint)
  if not has_none then
    found = endpoint
    break
  end
end
turn(tenant, now)
if not found then return {'', ''} end
local member = found .. ' ' .. tenant
return {member, redis.call('HGET', versions, member)}
