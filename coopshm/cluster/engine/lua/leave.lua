-- A node ends. KEYS: head, log, nodes, beats. ARGV: -, node, its announcement, message, length of the log
-- Unless another one has its name by now.
if redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[3] then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('ZREM', KEYS[4], ARGV[2])
  say(ARGV[4], ARGV[5])
end
return 'OK'
