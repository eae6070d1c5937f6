-- The counters of a conversation, in the format of conversations.rs. One hash per licence and day holds them by
-- the conversation's number (8 bytes), in 52 bytes at most: the time of the last counted message in seconds since
-- 1970, messages, rate; then for each turn its hash and its age in seconds at that time (22 and 10 bits), and its
-- count. In memory a turn is {hash, age, count}.
-- Turns that do not fit are in another hash of the licence, by the same number: the time, then the turns. It expires
-- when none of them counts any more.

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

local function pack_turns(turns)
  local parts = {}
  for at, turn in ipairs(turns) do
    parts[at] = struct.pack('>I4B', turn[1] * AGES + turn[2], math.min(255, turn[3]))
  end
  return table.concat(parts)
end

local function read_conversation(packed)
  if not packed then return {0, 0, 0, {}} end
  local touched, messages, rate, at = struct.unpack('>I4I4I4', packed)
  return {touched, messages, rate, read_turns(packed, at)}
end

local function pack_conversation(conversation)
  return struct.pack('>I4I4I4', conversation[1], conversation[2], conversation[3]) .. pack_turns(conversation[4])
end

-- The further turns of a conversation, in the same places as those of a conversation.
local function read_further(key, number)
  local packed = redis.call('HGET', key, number)
  if not packed then return {0, 0, 0, {}} end
  local touched, at = struct.unpack('>I4', packed)
  return {touched, 0, 0, read_turns(packed, at)}
end

-- Removes expired turns of some conversations: enough for each new one that they never accumulate.
local function expire_further(key, number, seconds)
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
  local packed = struct.pack('>I4', further[1]) .. pack_turns(further[4])
  local is_new = redis.call('HSET', key, number, packed) == 1
  redis.call('PEXPIRE', key, SAME_TURN * 1000)
  if is_new then expire_further(key, number, further[1]) end
end

-- Moves the counters to the time `seconds` and drops turns that have expired.
local function advance(conversation, seconds)
  local passed, turns = math.max(0, seconds - conversation[1]), {}
  for _, turn in ipairs(conversation[4]) do
    turn[2] = turn[2] + passed
    if turn[2] < SAME_TURN then turns[#turns + 1] = turn end
  end
  conversation[1], conversation[4] = seconds, turns
end

local function find_turn(conversation, hash)
  for _, turn in ipairs(conversation[4]) do
    if turn[1] == hash then return turn end
  end
end

-- Counts a turn; whether that changed `further`, which is needed if the conversation does not have the turn. In a full
-- table it replaces one of the least frequent turns.
local function count_turn(conversation, further, hash)
  local turn = find_turn(conversation, hash)
  if turn then
    turn[3] = turn[3] + 1
    return false
  end
  turn = find_turn(further, hash)
  if turn then
    turn[3] = turn[3] + 1
    return true
  end
  if #conversation[4] < TURNS then
    conversation[4][#conversation[4] + 1] = {hash, 0, 1}
    return false
  end
  local turns = further[4]
  if #turns < FURTHER then
    turns[#turns + 1] = {hash, 0, 1}
    return true
  end
  local fewest, rarest = 255, {}
  for _, known in ipairs(turns) do fewest = math.min(fewest, known[3]) end
  for at, known in ipairs(turns) do
    if known[3] == fewest then rarest[#rarest + 1] = at end
  end
  local hash_mix = (hash + further[1]) % 65536 * 40503 % 65536
  turns[rarest[math.floor(hash_mix * #rarest / 65536) + 1]] = {hash, 0, 1}
  return true
end

-- Subtracts one occurrence of a turn that was counted at `at`; whether the turn is among these.
local function take_turn(conversation, hash, at)
  local turns, was_there = {}, false
  for _, turn in ipairs(conversation[4]) do
    -- A turn that was first counted after that does not include it.
    if turn[1] == hash and turn[2] >= conversation[1] - at then
      turn[3], was_there = turn[3] - 1, true
    end
    if turn[3] > 0 then turns[#turns + 1] = turn end
  end
  conversation[4] = turns
  return was_there
end

-- Returns a message: {number, when it was counted, hash of the turn or -1, seconds of the rate's window or 0,
-- of the messages' window or 0, day}. Only for the key of that day. The last of KEYS has the further turns.
local function return_message(key, counted)
  if not counted or string.match(key, '(%d+)$') ~= tostring(counted[6]) then return end
  local packed = redis.call('HGET', key, counted[1])
  if not packed then return end
  local conversation = read_conversation(packed)
  local function is_in(length)
    return length > 0 and math.floor(conversation[1] / length) == math.floor(counted[2] / length)
  end
  if is_in(counted[4]) then conversation[3] = math.max(0, conversation[3] - 1) end
  if is_in(counted[5]) then conversation[2] = math.max(0, conversation[2] - 1) end
  if counted[3] >= 0 and not take_turn(conversation, counted[3], counted[2]) then
    local further = read_further(KEYS[#KEYS], counted[1])
    if take_turn(further, counted[3], counted[2]) then write_further(KEYS[#KEYS], counted[1], further) end
  end
  redis.call('HSET', key, counted[1], pack_conversation(conversation))
end
