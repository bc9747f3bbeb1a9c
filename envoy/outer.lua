-- The REST side: first on the way in, last on the way out. On the way in it notes what later filters rewrite; on the
-- way out it gives a response the status and body that the replica asked for. Native gRPC passes untouched.

local EDGE, UPSTREAM = "camserve.edge", "camserve.upstream"
local ONE_MESSAGE_BYTES = 1000000 -- an encrypted segment of 1 MiB holds a little less than that of the object

local MODEL = "^/v1/models/[^/]+"
local VERBS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true }
local KINDS = { evt = true, img = true, job = true, obj = true, webhook = true }

-- What a native caller may say of the protocol itself, and in which form.
local PROTOCOL = {
  ["grpc-timeout"] = "^%d%d?%d?%d?%d?%d?%d?%d?[HMSmun]$",
  ["grpc-accept-encoding"] = "^[%a, ]+$",
  ["grpc-encoding"] = "^%a+$",
}
local ENCODINGS = { identity = true, gzip = true, deflate = true }

local function allowed(name, value, native)
  if name:sub(1, 1) == ":" then return true end
  if name:sub(-4) == "-bin" or value:find("[\128-\255]") then return false end
  if name:find("[^%l%d.-]") then return false end -- HTTP has more characters than gRPC, which fails the call
  if name:sub(1, 5) ~= "grpc-" then return true end
  local form = native and PROTOCOL[name]
  return form and value:match(form) and (name ~= "grpc-encoding" or ENCODINGS[value])
end

-- grpc-core parses some headers itself. A malformed one fails the call, and a malformed grpc-timeout every later call with
-- a deadline on the connection that all callers share.
local function strip(headers, native)
  local unwanted = {}
  for name, value in pairs(headers) do
    if not allowed(name, value, native) then unwanted[#unwanted + 1] = name end
  end
  for _, name in ipairs(unwanted) do
    headers:remove(name)
    -- Without its key a call would run although it ran before; an empty one is refused.
    if name == "idempotency-key" then headers:add(name, "") end
  end
end

-- Returns what may be logged of the path of a known route: no query, and no id that is not one of ours; second, whether
-- it names a model, which callers may take for anything until there was one of that name.
local function loggable(path)
  local known = path:match("^[^?]*"):gsub("/(%l+)_(%w+)", function(kind, rest)
    if #rest >= 16 and not KINDS[kind] then return "/{id}" end
  end)
  return known, known:find(MODEL) ~= nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local media_type = headers:get("content-type") or ""
  strip(headers, media_type:sub(1, 16) == "application/grpc")
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(EDGE, "native", media_type:sub(1, 16) == "application/grpc" and "1" or "0")
  if handle:metadata():get("known_path") then
    local path, of_model = loggable(headers:get(":path"))
    if of_model then
      metadata:set(EDGE, "model_path", path)
      path = path:gsub(MODEL, "/v1/models/{model}")
    end
    metadata:set(EDGE, "path", path)
  end
  -- Any other may be whatever a caller has written there.
  local verb = headers:get(":method") or ""
  metadata:set(EDGE, "method", VERBS[verb] and verb or "other")
  metadata:set(EDGE, "request_id", headers:get("x-request-id") or "")
end

-- Handles of headers die with body(), so everything is set before it.
local function reply(handle, edge, status, body)
  local headers = handle:headers()
  headers:replace(":status", status)
  headers:replace("content-type", "application/json")
  handle:body(true):setBytes(edge["method"] == "HEAD" and "" or body)
  handle:headers():replace("content-length", tostring(#body))
end

local function find_fallback(rows, upstream)
  local message = upstream["grpc_message"] or ""
  for _, row in ipairs(rows) do
    local same = row["grpc_status"] == nil or row["grpc_status"] == upstream["grpc_status"]
    if same and (row["contains"] == nil or message:find(row["contains"], 1, true)) then
      return row
    end
  end
end

function envoy_on_response(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local edge = metadata:get(EDGE)
  if edge == nil or edge["native"] == "1" then return end
  local upstream = metadata:get(UPSTREAM)
  if upstream == nil then return end -- Envoy's own answer, worded already
  local headers = handle:headers()
  local status = headers:get(":status")
  local code, length = headers:get("x-http-code"), headers:get("x-content-length")
  for _, name in ipairs({ "x-http-code", "x-content-length", "x-http-status", "x-error-json", "grpc-status",
    "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding", "accept-encoding" }) do
    headers:remove(name)
  end

  if upstream["http_status"] ~= nil and upstream["error_json"] ~= nil then
    for _, name in ipairs({ "retry-after", "www-authenticate", "allow", "idempotency-replayed", "tus-resumable",
      "tus-version", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "deprecation", "sunset",
      "link" }) do
      if upstream[name] ~= nil then headers:replace(name, upstream[name]) end
    end
    reply(handle, edge, upstream["http_status"], upstream["error_json"])
    return
  end
  if tonumber(status) >= 400 then
    local row = find_fallback(handle:virtualHost():metadata():get("fallbacks"), upstream)
    for name, value in pairs(row["headers"]) do headers:replace(name, value) end
    reply(handle, edge, row["status"], row["head"] .. edge["request_id"] .. row["tail"])
    return
  end

  if edge["model_path"] ~= nil then metadata:set(EDGE, "path", edge["model_path"]) end
  local stream_type = handle:metadata():get("stream_type")
  if stream_type ~= nil then
    headers:replace("content-type", stream_type)
    headers:replace("cache-control", "no-store")
    headers:replace("x-accel-buffering", "no")
  end
  if code ~= nil and status == "200" then headers:replace(":status", code) end
  if code == "204" then headers:remove("content-type") end
  if code == "204" or edge["method"] == "HEAD" then
    handle:body(true):setBytes("")
    headers = handle:headers()
    headers:remove("content-length")
  end
  if length ~= nil then
    headers:replace("content-length", length)
    -- A replica that fails midway ends the body early. Without the close, a client of HTTP/1.1 would wait for the
    -- rest; up to this size an object is one message, which comes whole or not at all. A range may cross two.
    local info = handle:streamInfo()
    if (tonumber(length) > ONE_MESSAGE_BYTES or code == "206") and info:protocol() == "HTTP/1.1" then
      info:drainConnectionUponCompletion()
    end
  end
end
