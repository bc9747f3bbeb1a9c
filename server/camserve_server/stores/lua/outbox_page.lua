-- Returns where to go on, '0' after the last, and some of the tenant's endpoints, each followed by when it is due in ms since
-- 1970, 0 where it has nothing. ARGV: where to begin, about how many.
local some = redis.call('SSCAN', endpoints, ARGV[1], 'COUNT', ARGV[2])
local page = {some[1]}
for _, endpoint in ipairs(some[2]) do
  local waiting = redis.call('ZRANGE', waiting_key(endpoint), 0, 0, 'WITHSCORES')[2]
  local sending = redis.call('ZRANGE', sending_key(endpoint), 0, 0, 'WITHSCORES')[2]
  local due = math.min(tonumber(waiting or sending or '0'), tonumber(sending or waiting or '0'))
  page[#page + 1] = endpoint
  page[#page + 1] = whole(due)
end
return page
