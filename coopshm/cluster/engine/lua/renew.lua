-- The holder still computes. KEYS: head, log, lease. ARGV: generation, token, ms
if not stands() or redis.call('HGET', KEYS[3], 'token') ~= ARGV[2] then
  return 'LOST'
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 'OK'
