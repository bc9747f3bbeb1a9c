-- Asks of a bearer token what the token filter does not: nothing beside it, an algorithm of the list, a type of the list, and
-- no header that changes what is signed. What fails is replaced by what the token filter refuses, so that public routes stay
-- open and the refusal is worded in one place. The server asks the same (core/tokens.py).

local REFUSED = "Bearer -"
local MOST_HEADER_CHARACTERS = 4096

local VALUES = {}
for value = 0, 63 do
  VALUES[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):byte(value + 1)] = value
end

local function decode(text)
  local bits, count, bytes = 0, 0, {}
  for position = 1, #text do
    bits, count = bits * 64 + VALUES[text:byte(position)], count + 6
    if count >= 8 then
      count = count - 8
      bytes[#bytes + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(bytes)
end

-- Lua has no JSON here. Without letters and digits written as escapes, a name is in the text as it is; a quote inside of a
-- string has a backslash before it, so it never ends something that looks like a name.
local function well_formed(header, form)
  if header:find("\\u00[67]") or header:find("\\u003[46]") then return false end
  if header:find('"crit"%s*:') or header:find('"b64"%s*:') then return false end
  local _, algorithms = header:gsub('"alg"%s*:', "")
  if algorithms ~= 1 or not form["algorithms"][header:match('"alg"%s*:%s*"([^"]*)"') or ""] then return false end
  for kind in header:gsub("\\/", "/"):gmatch('"typ"%s*:%s*"([^"]*)"') do
    if not form["types"][(kind:lower():gsub("^application/", ""))] then return false end
  end
  return true
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local value = headers:get("authorization")
  if value == nil or not value:lower():find("bearer ", 1, true) then return end
  local form = handle:virtualHost():metadata():get("form")
  local header = value:match("^[Bb]earer +([%w_-]+)%.[%w_-]+%.[%w_-]+$")
  if #value > form["most_characters"] + #"Bearer " or header == nil or #header > MOST_HEADER_CHARACTERS
    or not well_formed(decode(header), form) then
    headers:replace("authorization", REFUSED)
  end
end
