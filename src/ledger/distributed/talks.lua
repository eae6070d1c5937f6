-- What a conversation has counted, as conversations.rs has it: a hash of a licence and a day holds it by the
-- conversation's number (8 bytes) in 52 bytes at most: when it last counted a message, in seconds since 1970,
-- messages, rate; then of each turn its hash and its age in seconds at that time (22 and 10 bits), and how
-- often it came. Read, a turn is hash, age, times.

local SAME_TURN, TURNS = 600, 8
local AGES, HASHES = 1024, 4194304

local function read_talk(packed)
  if not packed then return {0, 0, 0, {}} end
  local touched, messages, rate, at = struct.unpack('>I4I4I4', packed)
  local turns = {}
  while at <= #packed do
    local turn, times
    turn, times, at = struct.unpack('>I4B', packed, at)
    turns[#turns + 1] = {math.floor(turn / AGES), turn % AGES, times}
  end
  return {touched, messages, rate, turns}
end

local function packed_talk(talk)
  local parts = {struct.pack('>I4I4I4', talk[1], talk[2], talk[3])}
  for _, turn in ipairs(talk[4]) do
    parts[#parts + 1] = struct.pack('>I4B', turn[1] * AGES + turn[2], math.min(255, turn[3]))
  end
  return table.concat(parts)
end

-- Moves to `seconds`; turns that count no more make room.
local function grow_older(talk, seconds)
  local passed, turns = math.max(0, seconds - talk[1]), {}
  for _, turn in ipairs(talk[4]) do
    turn[2] = turn[2] + passed
    if turn[2] < SAME_TURN then turns[#turns + 1] = turn end
  end
  talk[1], talk[4] = seconds, turns
end

local function turn_of(talk, hash)
  for _, turn in ipairs(talk[4]) do
    if turn[1] == hash then return turn end
  end
end

-- Counts a turn. Where there is no room for it, any of those that came least often makes some.
local function count_turn(talk, hash)
  local turn = turn_of(talk, hash)
  if turn then
    turn[3] = turn[3] + 1
    return
  end
  if #talk[4] < TURNS then
    talk[4][#talk[4] + 1] = {hash, 0, 1}
    return
  end
  local fewest, rare = 255, {}
  for _, known in ipairs(talk[4]) do fewest = math.min(fewest, known[3]) end
  for at, known in ipairs(talk[4]) do
    if known[3] == fewest then rare[#rare + 1] = at end
  end
  local mixed = (hash + talk[1]) % 65536 * 40503 % 65536
  talk[4][rare[math.floor(mixed * #rare / 65536) + 1]] = {hash, 0, 1}
end

-- Gives back a message: {number, when it was counted, hash of the turn or -1, seconds of the rate's window or 0,
-- of the messages' window or 0, day}. The day is that of the key.
local function give_back_talk(key, counted)
  if not counted or string.match(key, '(%d+)$') ~= tostring(counted[6]) then return end
  local packed = redis.call('HGET', key, counted[1])
  if not packed then return end
  local talk = read_talk(packed)
  local function is_in(length)
    return length > 0 and math.floor(talk[1] / length) == math.floor(counted[2] / length)
  end
  if is_in(counted[4]) then talk[3] = math.max(0, talk[3] - 1) end
  if is_in(counted[5]) then talk[2] = math.max(0, talk[2] - 1) end
  local turns = {}
  for _, turn in ipairs(talk[4]) do
    -- What began later than this message was counted has it not.
    if turn[1] == counted[3] and turn[2] >= talk[1] - counted[2] then turn[3] = turn[3] - 1 end
    if turn[3] > 0 then turns[#turns + 1] = turn end
  end
  talk[4] = turns
  redis.call('HSET', key, counted[1], packed_talk(talk))
end

