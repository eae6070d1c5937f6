-- What a conversation has counted, as conversations.rs has it: a hash of a licence and a day holds it by the
-- conversation's number (8 bytes) in 52 bytes at most: when it last counted a message, in seconds since 1970,
-- messages, rate; then of each turn its hash and its age in seconds at that time (22 and 10 bits), and how
-- often it came. Read, a turn is hash, age, times.
-- Turns that have no room there are in another hash of the licence, by the same number: the time, then the turns.
-- That one lives as long as they count.

local SAME_TURN, TURNS, FURTHER = 600, 8, 500
local AGES, HASHES = 1024, 4194304

local function read_turns(packed, at)
  local turns = {}
  while at <= #packed do
    local turn, times
    turn, times, at = struct.unpack('>I4B', packed, at)
    turns[#turns + 1] = {math.floor(turn / AGES), turn % AGES, times}
  end
  return turns
end

local function packed_turns(turns)
  local parts = {}
  for at, turn in ipairs(turns) do
    parts[at] = struct.pack('>I4B', turn[1] * AGES + turn[2], math.min(255, turn[3]))
  end
  return table.concat(parts)
end

local function read_talk(packed)
  if not packed then return {0, 0, 0, {}} end
  local touched, messages, rate, at = struct.unpack('>I4I4I4', packed)
  return {touched, messages, rate, read_turns(packed, at)}
end

local function packed_talk(talk)
  return struct.pack('>I4I4I4', talk[1], talk[2], talk[3]) .. packed_turns(talk[4])
end

-- The further turns of a conversation, in the same places as those of a talk.
local function read_further(key, number)
  local packed = redis.call('HGET', key, number)
  if not packed then return {0, 0, 0, {}} end
  local touched, at = struct.unpack('>I4', packed)
  return {touched, 0, 0, read_turns(packed, at)}
end

-- Forgets those of some conversations that count no more: of as many for each new one that they never get many.
local function forget_further(key, number, seconds)
  local some = redis.call('HSCAN', key, struct.unpack('>I4', number), 'COUNT', 8)[2]
  for at = 1, #some, 2 do
    local touched = struct.unpack('>I4', some[at + 1])
    if seconds - touched >= SAME_TURN then redis.call('HDEL', key, some[at]) end
  end
end

local function write_further(key, number, further)
  if #further[4] == 0 then
    redis.call('HDEL', key, number)
    return
  end
  local packed = struct.pack('>I4', further[1]) .. packed_turns(further[4])
  local is_new = redis.call('HSET', key, number, packed) == 1
  redis.call('PEXPIRE', key, SAME_TURN * 1000)
  if is_new then forget_further(key, number, further[1]) end
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

-- Counts a turn; whether that changed the further ones, which are given where the talk has it not. Where there is no
-- room for it, any of those that came least often makes some.
local function count_turn(talk, further, hash)
  local turn = turn_of(talk, hash)
  if turn then
    turn[3] = turn[3] + 1
    return false
  end
  turn = turn_of(further, hash)
  if turn then
    turn[3] = turn[3] + 1
    return true
  end
  if #talk[4] < TURNS then
    talk[4][#talk[4] + 1] = {hash, 0, 1}
    return false
  end
  local turns = further[4]
  if #turns < FURTHER then
    turns[#turns + 1] = {hash, 0, 1}
    return true
  end
  local fewest, rare = 255, {}
  for _, known in ipairs(turns) do fewest = math.min(fewest, known[3]) end
  for at, known in ipairs(turns) do
    if known[3] == fewest then rare[#rare + 1] = at end
  end
  local mixed = (hash + further[1]) % 65536 * 40503 % 65536
  turns[rare[math.floor(mixed * #rare / 65536) + 1]] = {hash, 0, 1}
  return true
end

-- Takes back one time of a turn that was counted at `at`; whether it is among these.
local function take_turn(talk, hash, at)
  local turns, was_there = {}, false
  for _, turn in ipairs(talk[4]) do
    -- What began later than it was counted has it not.
    if turn[1] == hash and turn[2] >= talk[1] - at then
      turn[3], was_there = turn[3] - 1, true
    end
    if turn[3] > 0 then turns[#turns + 1] = turn end
  end
  talk[4] = turns
  return was_there
end

-- Gives back a message: {number, when it was counted, hash of the turn or -1, seconds of the rate's window or 0,
-- of the messages' window or 0, day}. The day is that of the key. The last of KEYS has the further turns.
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
  if counted[3] >= 0 and not take_turn(talk, counted[3], counted[2]) then
    local further = read_further(KEYS[#KEYS], counted[1])
    if take_turn(further, counted[3], counted[2]) then write_further(KEYS[#KEYS], counted[1], further) end
  end
  redis.call('HSET', key, counted[1], packed_talk(talk))
end
