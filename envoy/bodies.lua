-- Between the size limits and the transcoder, which holds what it read of a JSON body, and made of it, until the call ends: bounds the
-- bodies of calls under way, by what they say they are long, so that one tenant's do not fill the memory that all share. Worker
-- threads count for themselves.

local LEAST_BYTES = 16384 -- what a stream takes, however short its body
local COLLECT_EVERY_MS = 1000

local held, total, collected_ms = {}, 0, 0
local places, last_place = setmetatable({}, { __mode = "v" }), 0

local function give_back(place)
  total = total - place.bytes
  held[place.tenant] = held[place.tenant] - place.bytes
  if held[place.tenant] == 0 then held[place.tenant] = nil end
  place.bytes = 0
end

-- Returns a place, and what gives it back when it is collected: of a stream that breaks off nothing else tells.
local function take(tenant, bytes)
  local place, watch = { tenant = tenant, bytes = bytes }, newproxy(true)
  total = total + bytes
  held[tenant] = (held[tenant] or 0) + bytes
  getmetatable(watch).__gc = function()
    if place.bytes > 0 then give_back(place) end
  end
  return place, watch
end

local function tenant_of(handle, limits)
  local verified = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  local claims = verified and verified[limits["claims"]]
  return claims and claims[limits["tenant_claim"]] or ""
end

-- Returns the status of the refusal, if it is one.
local function refusal(handle, limits, tenant, bytes)
  -- Half of what the others leave, so that whoever comes next finds as much again as the last one took.
  local function status()
    local own = held[tenant] or 0
    if own + bytes > (limits["all_bytes"] - (total - own)) / 2 then return own > 0 and "429" or "503" end
  end
  local now = handle:timestamp()
  if status() and now - collected_ms >= COLLECT_EVERY_MS then
    collectgarbage() -- what streams held that have broken off
    collected_ms = now
  end
  return status()
end

function envoy_on_request(handle)
  local limits = handle:metadata():get("json")
  if limits == nil then return end
  local length = tonumber(handle:headers():get("x-camserve-content-length") or "") or limits["most_bytes"]
  local bytes, tenant = math.max(length, LEAST_BYTES), tenant_of(handle, limits)
  local status = refusal(handle, limits, tenant, bytes)
  if status ~= nil then
    handle:respond({ [":status"] = status, ["retry-after"] = "1", ["x-camserve-held"] = "1" }, "")
    return
  end
  local place, watch = take(tenant, bytes)
  last_place = last_place + 1
  places[last_place] = place
  handle:streamInfo():dynamicMetadata():set("camserve.json", "place", last_place)
  -- What is returned stays on this coroutine's stack, which Envoy lets go of with the stream.
  return watch
end

function envoy_on_response(handle)
  local asked = handle:streamInfo():dynamicMetadata():get("camserve.json")
  local place = asked and places[asked["place"]]
  if place == nil then return end
  for _ in handle:bodyChunks() do end -- passes on each chunk as it comes
  if place.bytes > 0 then give_back(place) end
end
