-- Takes one request from a tenant's bucket. KEYS[1]: the bucket. ARGV: now, requests a second, burst, 1 to take, 0
-- to look or -1 to give one back. Returns {1 or 0 whether it may pass, requests left, ms until it is full, ms until the next one may come}.
local now, rate, burst = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'tokens', 'at_ms')
local tokens = burst
if known[1] then
  -- The clock of a new primary may be behind.
  tokens = math.min(burst, tonumber(known[1]) + math.max(0, now - tonumber(known[2])) * rate / 1000)
end
-- A sum of thousandths may miss a whole number by a little.
local passes = tokens + 1e-6 >= 1
if ARGV[4] ~= '0' then
  if ARGV[4] == '-1' then
    tokens = math.min(burst, tokens + 1)
  elseif passes then
    tokens = math.max(0, tokens - 1)
  end
  redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at_ms', whole(now))
  redis.call('PEXPIRE', KEYS[1], whole(math.ceil(burst / rate * 1000) + 1000))
end
local left = math.floor(tokens + 1e-6)
local next_ms = math.ceil(math.max(0, 1 - tokens) / rate * 1000)
return { passes and 1 or 0, left, math.ceil((burst - tokens) / rate * 1000), next_ms }
