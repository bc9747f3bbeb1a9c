-- Says when an endpoint is due again, unless something came since. ARGV: now, member, version, time in ms, 0 for never.
local now, member, due = clock(ARGV[1]), ARGV[2], ARGV[4]
local endpoint, tenant = parts(member)
if (redis.call('HGET', versions, member) or '') ~= ARGV[3] then return 0 end
if due == '0' then
  redis.call('HDEL', versions, member)
  redis.call('ZREM', endpoints_of(tenant), endpoint)
else
  redis.call('ZADD', endpoints_of(tenant), due, endpoint)
end
return turn(tenant, now)
