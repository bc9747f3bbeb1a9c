-- Says in the ring that endpoints have events. ARGV: member and time of each in ms, 0 for now.
-- The version tells who settles an endpoint that something came after it looked; from a counter, so that none comes twice.
for at = 1, #ARGV, 2 do
  local endpoint, tenant = parts(ARGV[at])
  local due = whole(clock(ARGV[at + 1]))
  redis.call('HSET', versions, ARGV[at], redis.call('INCR', KEYS[1] .. 'outbox:version'))
  redis.call('ZADD', endpoints_of(tenant), 'LT', due, endpoint)
  redis.call('ZADD', tenants, 'LT', due, tenant)
end
return #ARGV / 2
