-- A lease ends without an entry: those who wait are told what came of it, if there are any.
-- KEYS: head, log, lease. ARGV: generation, token, message, length of the log
if not stands() then
  return 'VOID'
end
local lease = redis.call('HMGET', KEYS[3], 'token', 'wanted')
if lease[1] ~= ARGV[2] then
  return 'LOST'
end
redis.call('DEL', KEYS[3])
if lease[2] then
  say(ARGV[3], ARGV[4])
end
return 'OK'
