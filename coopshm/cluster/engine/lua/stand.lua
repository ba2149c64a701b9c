-- Put another claim to the head, unless it has changed since it was looked at: compare and set.
-- KEYS: head, log, values and pieces of the generation that ends.
-- ARGV: the generation that was seen there ('' for none), its claim ('' for none), the new generation, the new claim,
--       epoch, run, message, length of the log
-- What ends is removed in the same step, and nothing can be written to it afterwards.
local head = redis.call('HMGET', KEYS[1], 'gen', 'claim', 'epoch', 'run')
if (head[1] or '') ~= ARGV[1] or (head[2] or '') ~= ARGV[2] or head[3] ~= ARGV[5] or head[4] ~= ARGV[6] then
  return 'OTHER'
end
if ARGV[1] ~= ARGV[3] then
  -- First: a script that has written is not refused for want of memory any more, and a reset gives some back.
  redis.call('UNLINK', KEYS[3], KEYS[4])
  redis.call('HDEL', KEYS[1], 'bytes')
end
redis.call('HSET', KEYS[1], 'gen', ARGV[3], 'claim', ARGV[4])
say(ARGV[7], ARGV[8])
return 'OK'
