-- Gives a webhook a new secret; those before it sign as well for a while. Returns 0 for an unknown webhook.
-- ARGV: now, webhook, sealed secret, nonce, how long in ms. A second call with the nonce changes nothing.
local now, key = clock(ARGV[1]), webhook_key(ARGV[2])
local known = redis.call('HMGET', key, 'secret', 'nonce', 'before1', 'until1_ms')
if not known[1] then return 0 end
if known[2] == ARGV[4] then return 1 end
if known[3] then redis.call('HSET', key, 'before2', known[3], 'until2_ms', known[4]) end
redis.call('HSET', key, 'before1', known[1], 'until1_ms', whole(now + tonumber(ARGV[5])), 'secret', ARGV[3], 'nonce', ARGV[4])
return 1
