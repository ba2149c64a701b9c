-- Which of these keys have no entry: a string of 0 and 1. KEYS: head, log, values. ARGV: generation, key ids
if not stands() then
  return 'VOID'
end
local lacks = {}
for i = 2, #ARGV do
  lacks[i - 1] = redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 and '0' or '1'
end
return table.concat(lacks)
