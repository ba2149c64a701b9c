-- Who may compute a key. KEYS: head, log, values, lease.
-- ARGV: generation, key id, token, ms, message, length of the log, proof that a node has it (holding.py)
-- A token is of one asker and one time of asking; who asks again with it has its lease.
if not stands() then
  return {'VOID'}
end
local entry = redis.call('HGET', KEYS[3], ARGV[2])
if entry then
  return {'COMPUTED', entry}
end
local lease = redis.call('HMGET', KEYS[4], 'token', 'fence', 'wanted', 'proof')
if lease[1] and lease[1] ~= ARGV[3] then
  -- The holder is told once that there are others. It lives, or its lease ends by itself: they ask again then.
  if not lease[3] then
    redis.call('HSET', KEYS[4], 'wanted', 1)
    say(ARGV[5], ARGV[6])
  end
  local left = redis.call('PTTL', KEYS[4])
  if left < 0 then  -- no script leaves it so; but a lease without an end (restored by hand, say) would be waited for without one
    redis.call('PEXPIRE', KEYS[4], ARGV[4])
    left = tonumber(ARGV[4])
  end
  return {'HELD', lease[2] or '', left, lease[1], lease[4] or ''}
end
local fence = lease[2]
if not fence then
  fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
  redis.call('HSET', KEYS[4], 'token', ARGV[3], 'fence', fence, 'proof', ARGV[7])
end
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return {'GRANTED', fence}
