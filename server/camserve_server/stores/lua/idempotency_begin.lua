-- Takes an idempotency key for a call, or tells how the key stands. KEYS[1]: the key's record.
-- ARGV: now, fingerprint of the request, holder, nonce, lease in ms, how long the record is kept in ms.
-- Returns {'taken', nonce}, {'answered', answer}, {'running'} or {'reused'}.
local now = clock(ARGV[1])
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'holder', 'until_ms', 'nonce', 'answer')
local same = known[1] == ARGV[2]
if known[5] then return same and {'answered', known[5]} or {'reused'} end
if known[1] and tonumber(known[3]) > now and known[2] ~= ARGV[3] then return {same and 'running' or 'reused'} end
-- After a crash the same request goes on with the first one's nonce, so that what it made already is not made again.
local nonce = same and known[4] or ARGV[4]
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[2], 'holder', ARGV[3], 'until_ms', whole(now + tonumber(ARGV[5])), 'nonce', nonce)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'taken', nonce}
