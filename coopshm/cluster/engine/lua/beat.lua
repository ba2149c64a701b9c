-- A node lives. KEYS: head, log, nodes, beats, values, pieces of the generation it stands at.
-- ARGV: that generation, node, announcement, ms after which a silent node is away, ms after which it is forgotten, ms that all of it is kept
-- Returns epoch, run, seq, gen, claim, link; the nodes that are silent; the announcement that was there before.
--
-- An epoch ends here: if this server is not the one that wrote the head, it may lack what the other one had acknowledged.
-- Who sees it first begins a new one, with an empty log; the claim stays, since a reset that is known is never forgotten
-- on purpose. Leases and entries of before are of another generation by then.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First: a script that has written is not refused for want of memory any more.
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[6])
end
--
-- What no script has written is as good as forgotten: it would stop the others, or those who read it.
local function number(text)
  return text and #text < 16 and string.match(text, '^%d+$')
end
local had = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'seq', 'gen')
local strange = had[4] and (#had[4] > 64 or not string.match(had[4], '^%x+$'))
if had[1] ~= run or not number(had[2]) or not number(had[3]) or strange then
  redis.call('HDEL', KEYS[1], 'gen', 'bytes', 'fence', 'link')
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', string.format('%.0f', now), 'seq', 0)
  redis.call('DEL', KEYS[2])
end
if redis.call('TYPE', KEYS[2]).ok ~= 'stream' then
  redis.call('DEL', KEYS[2])  -- nobody could read it
end
-- An engine that is full may evict keys, if it was told so: what is gone takes no room.
if had[4] == ARGV[1] and redis.call('EXISTS', KEYS[5], KEYS[6]) == 0 then
  redis.call('HDEL', KEYS[1], 'bytes')
end
local before = redis.call('HGET', KEYS[3], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[4], string.format('%.0f', now), ARGV[2])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('%.0f', now - ARGV[5]))) do
  redis.call('ZREM', KEYS[4], node)
  redis.call('HDEL', KEYS[3], node)
end
local silent = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. string.format('%.0f', now - ARGV[4]))
local head = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'seq', 'gen', 'claim', 'link')
return {head[1], head[2], head[3], head[4], head[5], head[6] or '', silent, before}
