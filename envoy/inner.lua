-- The gRPC side: last on the way in, first on the way out. On the way in it sees the RPC that the transcoder chose and
-- refuses a query that names a variable of the path, which would silently replace it, and everything that no RPC
-- takes: late, so that it counts toward the caller's rate. On the way out it keeps how the
-- replica ended the call: the transcoder drops the trailers of a call that had already sent headers.

local UPSTREAM = "camserve.upstream"
local KEPT = { ["x-http-status"] = "http_status", ["x-error-json"] = "error_json", ["grpc-status"] = "grpc_status",
  ["grpc-message"] = "grpc_message", ["retry-after"] = "retry-after", ["www-authenticate"] = "www-authenticate",
  ["allow"] = "allow", ["idempotency-replayed"] = "idempotency-replayed", ["tus-resumable"] = "tus-resumable",
  ["tus-version"] = "tus-version", ["x-ratelimit-limit"] = "x-ratelimit-limit",
  ["x-ratelimit-remaining"] = "x-ratelimit-remaining", ["x-ratelimit-reset"] = "x-ratelimit-reset",
  ["x-camserve-shed"] = "x-camserve-shed", ["deprecation"] = "deprecation", ["sunset"] = "sunset", ["link"] = "link" }

local function plain(key)
  local decoded = key:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return (decoded:lower():gsub("[_+]", ""))
end

-- Returns what the route itself answers, for paths, verbs and media types that no RPC takes.
local function refusal(handle)
  local answer = handle:metadata():get("refusal")
  if answer == nil then return nil end
  local headers = { [":status"] = answer["status"] }
  for name, value in pairs(answer["headers"]) do headers[name] = value end
  return headers
end

function envoy_on_request(handle)
  local refused = refusal(handle)
  if refused ~= nil then
    handle:respond(refused, "")
    return
  end
  local path = handle:headers():get("x-envoy-original-path")
  local query = path and path:match("%?(.*)$")
  if query == nil then return end
  local variables = handle:metadata():get("path_variables")
  if variables == nil then return end
  for key in query:gmatch("([^&=]+)[^&]*") do
    if variables[plain(key)] then
      handle:respond({ [":status"] = "400" }, "")
      return
    end
  end
end

local function keep(handle, source)
  local metadata = handle:streamInfo():dynamicMetadata()
  for header, key in pairs(KEPT) do
    local value = source:get(header)
    if value ~= nil then metadata:set(UPSTREAM, key, value) end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if (headers:get("content-type") or ""):sub(1, 16) ~= "application/grpc" then return end
  -- Kept even when there is nothing else to keep: tells the outer filter that a replica answered.
  handle:streamInfo():dynamicMetadata():set(UPSTREAM, "answered", "1")
  if headers:get("grpc-status") ~= nil then
    keep(handle, headers)
    return
  end
  local trailers = handle:trailers() -- yields; headers and data flow on
  if trailers ~= nil then keep(handle, trailers) end
end
