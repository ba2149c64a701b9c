-- Remove an entry that is not authentic, unless it is another one by now. KEYS: head, log, values. ARGV: generation, key id, entry
if stands() and redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[3] then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'bytes', -#ARGV[2] - #ARGV[3])
  return 'OK'
end
return 'OTHER'
