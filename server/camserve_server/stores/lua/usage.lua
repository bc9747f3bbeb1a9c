-- What a tenant uses of its day and its concurrent calls. KEYS[1]: its usage, KEYS[2]: its running calls.
local DAY_MS = 86400000

-- Returns how many images of today are used; the first look of a day begins it.
local function used(now)
  local day = whole(math.floor(now / DAY_MS))
  local known = redis.call('HMGET', KEYS[1], 'day', 'used')
  if known[1] == day then return tonumber(known[2]) end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'day', day, 'used', 0)
  redis.call('PEXPIRE', KEYS[1], 2 * DAY_MS)
  return 0
end

-- Returns how many calls run; those whose process fell silent are let go.
local function in_use(now)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now))
  return redis.call('ZCARD', KEYS[2])
end

local function until_tomorrow(now) return DAY_MS - now % DAY_MS end
