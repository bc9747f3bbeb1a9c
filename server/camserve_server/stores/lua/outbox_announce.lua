-- Says in the ring that endpoints have events. KEYS[1]: the ring's prefix; ARGV: member and time of each in ms, 0 for now.
-- The version tells who settles an endpoint that something came after it looked; from a counter, so that none comes twice.
local due, versions = KEYS[1] .. 'outbox', KEYS[1] .. 'outbox:versions'
for at = 1, #ARGV, 2 do
  redis.call('HSET', versions, ARGV[at], redis.call('INCR', KEYS[1] .. 'outbox:version'))
  redis.call('ZADD', due, 'LT', whole(clock(ARGV[at + 1])), ARGV[at])
end
return #ARGV / 2
