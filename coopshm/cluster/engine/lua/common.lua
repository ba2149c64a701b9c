-- What the scripts share; it goes before each of them. KEYS[1] is the head, KEYS[2] the log, ARGV[1] the generation.
-- A script runs as a whole or not at all, so what it has checked is so when it writes.

local function stands()
  return redis.call('HGET', KEYS[1], 'gen') == ARGV[1]
end

-- Append a message. Ids are the engine's epoch and an own number: a reader that misses one knows. Without a head (flushed)
-- there is nobody to tell; all who beat begin anew.
local function say(message, keep)
  local epoch = redis.call('HGET', KEYS[1], 'epoch')
  if epoch then
    local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', keep, epoch .. '-' .. seq, 'm', message)
  end
end
