-- Who gives signs of life there. KEYS: nodes, beats. ARGV: -, ms after which a silent node is away. Returns announcements.
local time = redis.call('TIME')
local since = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2]
local found = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], string.format('%.0f', since), '+inf')) do
  found[#found + 1] = redis.call('HGET', KEYS[1], node) or nil
end
return found
