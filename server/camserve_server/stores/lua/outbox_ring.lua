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

-- Gives an endpoint a place, and its tenant a turn, at a time in ms, 0 for now, unless theirs is earlier. The turn is not before
-- now: the tenant with the oldest events would have every one until they are gone.
-- The version tells who settles an endpoint that something came after it looked; from a counter, so that none comes twice.
local function announce(member, time, now)
  local endpoint, tenant = parts(member)
  local due = time == '0' and now or tonumber(time)
  redis.call('HSET', versions, member, redis.call('INCR', KEYS[1] .. 'outbox:version'))
  redis.call('ZADD', endpoints_of(tenant), 'LT', whole(due), endpoint)
  redis.call('ZADD', tenants, 'LT', whole(math.max(due, now)), tenant)
end
