-- Grants a request or says what stands in the way: rate, places, messages and tokens in one go.
-- KEYS[3] the group of its message id, if it has one; the last one, where a conversation counts it (ARGV[4]),
--         a hash of conversations by number (8 bytes), in 52 bytes at most: messages, start of the rate's window,
--         its count, start of the messages' window; then of each turn its hash, its first time and how often it
--         came. Times are seconds since 1970
-- ARGV  1 gateway   2 name   3 numbers: boot, lifetime in ms, input, output or -1, least output, then limits, each
--      with its period and -1 for none, of messages, tokens and requests (rate), places or -1, start and end of each
--      window as the gateway sees the time, whether the gateway has spoken of this licence before (1), whether it asks
--      again about the same request (1)
--      4 number of the conversation, 16 hex digits   5 numbers: rate, its period, messages, their period, how often a
--      turn may come, the turn or -1
-- Answers {code, the store's time, ...}: the codes are those of `Answer` in answer.rs.
local GRANTED, CLOCK, PLACES, RATE, MESSAGES, TOKENS, BUSY, LOST, CONVERSATION = 0, 1, 2, 3, 4, 5, 6, 7, 8
-- What a request is to the message of its group.
local ALONE, OWNS, SHARES, PAID = 0, 1, 2, 3
-- As in conversations.rs: how long a turn is the same one, and how many are told apart.
local SAME_TURN, TURNS = 600, 4

local function read_talk(packed)
  if not packed then return {0, 0, 0, 0, {}} end
  local messages, rate_start, rate, start, at = struct.unpack('>I4I4I4I4', packed)
  local turns = {}
  while at <= #packed do
    local turn, first, times
    turn, first, times, at = struct.unpack('>I4I4B', packed, at)
    for _, number in ipairs({turn, first, times}) do turns[#turns + 1] = number end
  end
  return {messages, rate_start, rate, start, turns}
end

local function packed_talk(talk)
  local parts = {struct.pack('>I4I4I4I4', talk[1], talk[2], talk[3], talk[4])}
  for at = 1, #talk[5], 3 do
    local times = math.min(255, talk[5][at + 2])
    parts[#parts + 1] = struct.pack('>I4I4B', talk[5][at], talk[5][at + 1], times)
  end
  return table.concat(parts)
end

local gateway, name = ARGV[1], ARGV[2]
local boot, lifetime, input, output, least, limit, period, token_limit, token_period, rate, rate_period, places,
  minute, minute_end, hour, hour_end, day, day_end, month, month_end, has_spoken, again =
  struct.unpack('<dddddddddddddddddddddd', ARGV[3])
local now = clock()
local starts, stops = {minute, hour, day, month}, {minute_end, hour_end, day_end, month_end}
for at = 1, 4 do
  if now < starts[at] or now >= stops[at] then return {CLOCK, now} end
end

local account = read_account()
local missing = look_over(account, now)
if counted then save(account, now) end
if missing or is_lost(account, gateway, has_spoken == 1) then return {LOST, now} end

-- Asked before: the answer came too late, or one of the questions does. One that is over is granted
-- nothing.
local known = read_entry(name)
if known and known[8] == 0 then return {BUSY, now, 0} end
if known and again == 1 and known[11] ~= 1 then
  known[11] = 1
  write_entry(name, known)
end

if not known and places >= 0 and account.o[1] >= places then return {PLACES, now} end

local rates = account.r or {0, 0, 0, 0, 0, 0, 0, 0}
for period = 1, 4 do
  local at = 2 * period - 1
  if rates[at] ~= starts[period] then rates[at], rates[at + 1] = starts[period], 0 end
end
if rate >= 0 and not known then
  if rates[2 * rate_period] >= rate then return {RATE, now} end
  for period = 1, 4 do rates[2 * period] = rates[2 * period] + 1 end
  write('r', rates)
end

-- A message that requests of this id have, or hold, is not needed again.
local group, role = nil, ALONE
if known then
  role = known[10]
elseif KEYS[3] and not (ARGV[4] and #KEYS == 3) then
  group = current_group(redis.call('GET', KEYS[3]), now)
  role = (group[3] == 1 and PAID) or (group[4] ~= '' and SHARES) or OWNS
end
local covered = known or role > OWNS

-- A request that was asked about before, and a message that comes again, are counted already.
local talk, number = nil, nil
if ARGV[4] and not known and (not group or group[2] == 0) then
  number = string.gsub(ARGV[4], '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
  talk = read_talk(redis.call('HGET', KEYS[#KEYS], number))
  local rate_limit, rate_kind, day_limit, day_kind, repeats, turn = struct.unpack('<dddddd', ARGV[5])
  local seconds = math.floor(now / 1000)
  if talk[2] ~= starts[rate_kind] / 1000 then talk[2], talk[3] = starts[rate_kind] / 1000, 0 end
  if talk[4] ~= starts[day_kind] / 1000 then talk[4], talk[1] = starts[day_kind] / 1000, 0 end
  local turns = {}
  for at = 1, #talk[5], 3 do
    if seconds - talk[5][at + 1] < SAME_TURN then
      for place = at, at + 2 do turns[#turns + 1] = talk[5][place] end
    end
  end
  talk[5] = turns
  local stands, resets = nil, 0
  if rate_limit >= 0 and talk[3] >= rate_limit then
    stands, resets = 1, stops[rate_kind]
  elseif day_limit >= 0 and talk[1] >= day_limit then
    stands, resets = 2, stops[day_kind]
  elseif turn >= 0 then
    local place = nil
    for at = 1, #turns, 3 do if turns[at] == turn then place = at end end
    if place and turns[place + 2] >= repeats then
      stands, resets = 3, (turns[place + 1] + SAME_TURN) * 1000
    elseif place then
      turns[place + 2] = turns[place + 2] + 1
    else
      -- In the order of their first times: the oldest makes room.
      if #turns >= 3 * TURNS then for _ = 1, 3 do table.remove(turns, 1) end end
      for _, each in ipairs({turn, seconds, 1}) do turns[#turns + 1] = each end
    end
  end
  if stands then
    save(account, now)
    return {CONVERSATION, now, stands, resets}
  end
  if rate_limit >= 0 then talk[3] = talk[3] + 1 end
  if day_limit >= 0 then talk[1] = talk[1] + 1 end
end

local messages, settled_tokens, extra, more_tokens, forgiven, forgiven_tokens =
  usage(account, period, starts[period])
local held = opened(account, period, starts[period])
local used = math.max(0, messages + held - forgiven)
if limit >= 0 and not covered and used >= limit + extra then
  save(account, now)
  return {MESSAGES, now, used, limit + extra, has_presumed(account)}
end

local cap = output
if token_period ~= period then
  local _
  _, settled_tokens, _, more_tokens, _, forgiven_tokens = usage(account, token_period, starts[token_period])
end
local _, open_tokens = opened(account, token_period, starts[token_period])
local tokens = math.max(0, settled_tokens - forgiven_tokens)
if token_limit >= 0 then
  token_limit = token_limit + more_tokens
  local unsettled = math.max(0, token_limit - tokens)
  local left = math.max(0, unsettled - open_tokens)
  -- An answer without a cap could cost anything: it gets whatever is left.
  local wanted = output >= 0 and output or left
  -- An embedding has no output to shrink; an answer needs at least one token.
  local floor = output == 0 and 0 or math.max(1, output >= 0 and math.min(least, output) or least)
  if not known and input + floor > left then
    save(account, now)
    if input + floor <= unsettled then return {BUSY, now, has_presumed(account)} end
    return {TOKENS, now, tokens, unsettled, input + floor, token_limit, has_presumed(account)}
  end
  cap = math.min(wanted, left - input)
end

if known then
  if output >= 0 or token_limit >= 0 then cap = known[4] - known[3] end
else
  if group then
    if role == OWNS then group[4], group[5] = own_name(name), 0 end
    group[2] = group[2] + 1
    group[6][#group[6] + 1] = name
    write_group(KEYS[3], group)
  end
  local message = covered and 0 or 1
  local entry = {now + lifetime, message, input, input + math.max(0, cap), starts, boot, gateway, 1,
    0, role, again}
  write_entry(name, entry)
  count_open(account.o, entry)
  if not account['u:' .. gateway] then
    write('u:' .. gateway, {boot, 0, none(), account.e or 0})
  end
  used = used + message
  if talk then
    local key = KEYS[#KEYS]
    local is_new = redis.call('HLEN', key) == 0
    redis.call('HSET', key, number, packed_talk(talk))
    if is_new then redis.call('PEXPIRE', key, 2 * DAY) end
  end
end
save(account, now)
return {GRANTED, now, cap, used, limit + extra, tokens, token_limit, role}
