-- What the scripts share; it goes before each of them. KEYS[1] is the head, KEYS[2] the log, ARGV[1] the generation.
-- A script runs as a whole or not at all, so what it has checked is so when it writes.

local function stands()
  return redis.call('HGET', KEYS[1], 'gen') == ARGV[1]
end

-- Append a message. Ids are the engine's epoch and an own number: a reader that misses one knows. With it goes the link of
-- the chain that it hangs on, which follows from all messages before it: should all keys have been put back to what they
-- were, numbers come twice, but not the links. Without a head (flushed) there is nobody to tell; all who beat begin anew.
local function say(message, keep)
  local head = redis.call('HMGET', KEYS[1], 'epoch', 'link')
  if head[1] then
    local link = head[2] or ''
    local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
    local words = {'XADD', KEYS[2], 'MAXLEN', '~', keep, head[1] .. '-' .. seq, 'm', message, 'l', link}
    if type(redis.pcall(unpack(words))) == 'table' then
      redis.call('DEL', KEYS[2])  -- it has a higher number (the head alone was put back), or is no log: it begins anew
      redis.call(unpack(words))
    end
    redis.call('HSET', KEYS[1], 'link', string.sub(redis.sha1hex(link .. message), 1, 16))
  end
end
