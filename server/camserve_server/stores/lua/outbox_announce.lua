-- Says in the ring that endpoints have events. ARGV: member and time of each in ms, 0 for now.
for at = 1, #ARGV, 2 do announce(ARGV[at], ARGV[at + 1]) end
return #ARGV / 2
