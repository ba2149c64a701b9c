-- A node stands elsewhere. KEYS: head, log, nodes. ARGV: -, node, announcement, message, length of the log
redis.call('HDEL', KEYS[3], ARGV[2])  -- first: a script that has written is not refused for want of memory
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
say(ARGV[4], ARGV[5])
return 'OK'
