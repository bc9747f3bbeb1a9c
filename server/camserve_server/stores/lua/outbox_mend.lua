-- Announces those endpoints whose place in the ring, or their tenant's, is missing or later than they are due.
-- ARGV: by how many ms a place may be late, and as for the announcement. Returns how many were announced.
local now, late, mended = clock('0'), tonumber(ARGV[1]), 0
for at = 2, #ARGV, 2 do
  local endpoint, tenant = parts(ARGV[at])
  local latest = math.max(tonumber(ARGV[at + 1]), now) + late
  local place, turns = redis.call('ZSCORE', endpoints_of(tenant), endpoint), redis.call('ZSCORE', tenants, tenant)
  if not (place and turns) or math.max(tonumber(place), tonumber(turns)) > latest then
    announce(ARGV[at], ARGV[at + 1], now)
    mended = mended + 1
  end
end
return mended
