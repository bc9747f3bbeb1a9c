-- Returns the endpoint that is longest due of the tenant whose turn it is, and its version, and puts it off so that another
-- courier takes another one; '' where none of those looked at has room; false while it is nobody's turn.
-- ARGV: now, by how many ms it is put off, how many letters of an endpoint tell its origin, how many tenants have no room, those
-- tenants, and each "origin tenant" that has none.
local now, off, letters, count = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full, crowded = {}, {}
for at = 5, 4 + count do full[ARGV[at]] = true end
for at = 5 + count, #ARGV do crowded[ARGV[at]] = true end
local tenant
for _, name in ipairs(redis.call('ZRANGEBYSCORE', tenants, '-inf', whole(now), 'LIMIT', 0, count + 1)) do
  if not full[name] then
    tenant = name
    break
  end
end
if not tenant then return false end
local found
for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', endpoints_of(tenant), '-inf', whole(now), 'LIMIT', 0, 100)) do
  redis.call('ZADD', endpoints_of(tenant), whole(now + off), endpoint)
  if not crowded[string.sub(endpoint, 1, letters) .. ' ' .. tenant] then
    found = endpoint
    break
  end
end
turn(tenant, now)
if not found then return {'', ''} end
local member = found .. ' ' .. tenant
return {member, redis.call('HGET', versions, member)}
