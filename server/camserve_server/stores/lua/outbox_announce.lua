-- Says in the ring that endpoints have events. ARGV: now, then member and time of each in ms, 0 for now.
local now = clock(ARGV[1])
for at = 2, #ARGV, 2 do announce(ARGV[at], ARGV[at + 1], now) end
return (#ARGV - 1) / 2
