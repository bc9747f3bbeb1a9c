-- Milliseconds since 1970; 0 asks for the server's clock, which all replicas share.
local function clock(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua writes large numbers with an exponent unless told otherwise.
local function whole(number) return string.format('%.0f', number) end
