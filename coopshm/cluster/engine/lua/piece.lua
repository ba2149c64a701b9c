-- Keep a piece of a large entry, before the entry. KEYS: head, log, pieces. ARGV: generation, field, piece, most bytes in all
-- If the writer dies between pieces, those that it wrote stay, and are counted, until the generation ends.
if not stands() then
  return 'VOID'
end
local bytes = tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0')
if bytes + #ARGV[3] > tonumber(ARGV[4]) then
  return 'FULL'
end
if redis.call('HSET', KEYS[3], ARGV[2], ARGV[3]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[3])
end
return 'OK'
