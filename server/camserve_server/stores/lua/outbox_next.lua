-- Returns the endpoint that is longest due and its version, and puts it off so that another courier takes another one;
-- false while none is due. KEYS[1]: the ring's prefix; ARGV: now, by how many ms it is put off.
local now, due = clock(ARGV[1]), KEYS[1] .. 'outbox'
local first = redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, 1)[1]
if not first then return false end
redis.call('ZADD', due, whole(now + tonumber(ARGV[2])), first)
return {first, redis.call('HGET', KEYS[1] .. 'outbox:versions', first)}
