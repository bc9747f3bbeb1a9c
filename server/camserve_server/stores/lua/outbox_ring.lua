-- Who has events on their way: tenants by when their turn is, and the endpoints of each by when they are due, so that a tenant
-- with many endpoints takes one turn like any other. KEYS[1]: the ring's prefix; a member is "endpoint tenant".
local tenants, versions = KEYS[1] .. 'outbox:tenants', KEYS[1] .. 'outbox:versions'

local function endpoints_of(tenant) return KEYS[1] .. 'outbox:of:' .. tenant end
local function parts(member) return string.match(member, '^(%S+) (.+)$') end

-- Says when a tenant's next turn is: when an endpoint is due, and behind whoever waits already.
local function turn(tenant, now)
  local due = redis.call('ZRANGE', endpoints_of(tenant), 0, 0, 'WITHSCORES')[2]
  if not due then return redis.call('ZREM', tenants, tenant) end
  return redis.call('ZADD', tenants, whole(math.max(tonumber(due), now)), tenant)
end
