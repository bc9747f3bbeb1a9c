-- Between the token filter and the rate limit: marks calls for one image whose callers wait, for the limiter, which refuses them
-- when no replica has room, as a replica does with those that the limiter was too late for. Both say for how long, and until then
-- the tenant's are answered here: each of a flood would take from the replicas what answers need.

local MOST_TENANTS = 1000
local TOLD = { "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset" }

-- By tenant, until when in ms, and what its callers are told. Each worker thread has its own.
local held, count = {}, 0

-- Returns the tenant of a call that waits for the answer to one image; larger ones and those that ask for it become jobs.
local function waiting_tenant(handle)
  local route = handle:metadata():get("one_image")
  if route == nil then return nil end
  local headers = handle:headers()
  if (headers:get("prefer") or ""):lower():find("respond-async", 1, true) then return nil end
  if (tonumber(headers:get("x-camserve-content-length") or "") or 0) > route["most_bytes"] then return nil end
  local verified = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  local claims = verified and verified[route["claims"]]
  return claims and claims[route["tenant_claim"]]
end

function envoy_on_request(handle)
  local tenant = waiting_tenant(handle)
  if tenant == nil then return end
  local hold = held[tenant]
  if hold and handle:timestamp() < hold.until_ms then
    handle:respond(hold.told, "")
  else
    handle:headers():add("x-camserve-kind", "one_image")
    handle:streamInfo():dynamicMetadata():set("camserve.shed", "tenant", tenant)
  end
end

function envoy_on_response(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local asked = metadata:get("camserve.shed")
  if not asked then return end
  local headers, replica = handle:headers(), metadata:get("camserve.upstream") or {}
  local function said(name) return headers:get(name) or replica[name] end
  local milliseconds = tonumber(said("x-camserve-shed") or "")
  if milliseconds == nil then return end
  local tenant = asked["tenant"]
  if held[tenant] == nil then
    if count >= MOST_TENANTS then held, count = {}, 0 end
    count = count + 1
  end
  local told = { [":status"] = "503" }
  for _, name in ipairs(TOLD) do told[name] = said(name) end
  held[tenant] = { until_ms = handle:timestamp() + milliseconds, told = told }
end
