-- Writes a model's routes if they are at the revision from which the change was made.
-- KEYS: marks, routes, changes of the model. ARGV: model, that revision, nonce, routes, change, how many changes are kept.
-- Returns 0 when another change came first. A second call with the nonce changes nothing.
local known = redis.call('HGET', KEYS[1], ARGV[1]) or '0'
local mark = string.format('%d %s', tonumber(ARGV[2]) + 1, ARGV[3])
if known == mark then return 1 end
if string.match(known, '^%d+') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], mark)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('LPUSH', KEYS[3], ARGV[5])
redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[6]) - 1)
return 1
