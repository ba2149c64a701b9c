-- The holder still computes. KEYS: head, log, lease. ARGV: generation, token, ms, proof (holding.py)
if not stands() or redis.call('HGET', KEYS[3], 'token') ~= ARGV[2] then
  return 'LOST'
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])  -- first: a script that has written is not refused for want of memory
redis.call('HSET', KEYS[3], 'proof', ARGV[4])
return 'OK'
