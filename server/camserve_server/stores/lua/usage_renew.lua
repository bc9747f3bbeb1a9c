-- Prolongs the leases of calls. ARGV: now, lease in ms, calls. Returns how many still run.
local ends = whole(clock(ARGV[1]) + tonumber(ARGV[2]))
local renewed = 0
for at = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[2], ARGV[at]) then
    redis.call('ZADD', KEYS[2], ends, ARGV[at])
    renewed = renewed + 1
  end
end
if renewed > 0 then redis.call('PEXPIRE', KEYS[2], 2 * tonumber(ARGV[2])) end
return renewed
