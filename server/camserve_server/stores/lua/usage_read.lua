-- Reads what is used. ARGV: now. Returns {images used today, running calls, when tomorrow begins in s}.
local now = clock(ARGV[1])
return { used(now), in_use(now), math.floor((now + until_tomorrow(now)) / 1000) }
