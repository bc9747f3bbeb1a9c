-- Gives a webhook a new secret; the old one signs as well for a while. Returns 0 for an unknown webhook.
-- ARGV: now, webhook, sealed secret, nonce, how long in ms. A second call with the nonce replaces the new secret only.
local now, key = clock(ARGV[1]), webhook_key(ARGV[2])
local known = redis.call('HMGET', key, 'secret', 'nonce')
if not known[1] then return 0 end
if known[2] ~= ARGV[4] then
  redis.call('HSET', key, 'previous', known[1], 'previous_until_ms', whole(now + tonumber(ARGV[5])), 'nonce', ARGV[4])
end
redis.call('HSET', key, 'secret', ARGV[3])
return 1
