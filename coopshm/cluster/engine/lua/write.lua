-- Keep an entry. KEYS: head, log, values, lease.
-- ARGV: generation, key id, entry, token, fence, message, length of the log, bytes beyond the entry's, most bytes in all
-- Who has no lease writes with the token '' (it computed without: before there was a sidecar, or after lease_timeout).
-- While somebody holds the lease nobody else writes: one whose lease has expired and was given to another comes too late.
if not stands() then
  return 'VOID'
end
local lease = redis.call('HMGET', KEYS[4], 'token', 'fence')
local mine = lease[1] and lease[1] == ARGV[4] and lease[2] == ARGV[5]
if lease[1] and not mine then
  return 'REFUSED'
end
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then
  if mine then
    redis.call('DEL', KEYS[4])
  end
  return 'KNOWN'
end
local size = #ARGV[2] + #ARGV[3]
local bytes = tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0')
if bytes + size + ARGV[8] > tonumber(ARGV[9]) then
  return 'FULL'
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('HINCRBY', KEYS[1], 'bytes', size)
if mine then
  redis.call('DEL', KEYS[4])
end
say(ARGV[6], ARGV[7])
return 'OK'
