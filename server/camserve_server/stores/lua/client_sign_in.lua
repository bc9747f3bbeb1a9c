-- Compares a secret with those of a client, unless too many attempts at the client failed lately.
-- KEYS: the client's record, its failures. ARGV: now, digest of the secret, failures allowed, how long they count in ms.
-- Returns {'wait', ms}, {'refused'} or {'known', tenant, scopes, when made}. Unknown clients take the same way.
local now, given, allowed, window = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

-- Looks at every byte, so that the time it takes tells nothing.
local function same(expected)
  local difference = 0
  for position = 1, #given do
    difference = bit.bor(difference, bit.bxor(given:byte(position), expected:byte(position)))
  end
  return difference == 0
end

local oldest = redis.call('LINDEX', KEYS[2], 0)
while oldest and tonumber(oldest) <= now - window do
  redis.call('LPOP', KEYS[2])
  oldest = redis.call('LINDEX', KEYS[2], 0)
end
if redis.call('LLEN', KEYS[2]) >= allowed then return {'wait', tonumber(oldest) + window - now} end

local nothing = string.rep('0', #given)
local known = redis.call('HMGET', KEYS[1], 'tenant', 'scopes', 'created_at', 'secret_sha256', 'before_sha256', 'before_until_ms')
local right = same(known[4] or nothing)
local right_before = same(known[5] or nothing)
if known[1] and (right or (right_before and tonumber(known[6]) > now)) then
  return {'known', known[1], known[2], known[3]}
end
redis.call('RPUSH', KEYS[2], whole(now))
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {'refused'}
