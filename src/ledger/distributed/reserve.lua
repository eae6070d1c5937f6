-- Grants a request or answers with the limit that refuses it: rate, places, messages and tokens, atomically.
-- KEYS[3] the group of its message id, if it has one; then, where a conversation counts it (ARGV[4]), the hash of
--         further turns, where it counts those, that of conversations of the day before, if turns of that day
--         still count, and last that of this day: see conversations.lua, which precedes this text then
-- ARGV  1 gateway   2 name   3 numbers: boot, lifetime in ms, input, output or -1, least output, then limits, each
--      with its period and -1 for none, of messages, tokens and requests (rate), places or -1, start and end of each
--      window by the gateway's clock, whether the gateway has reported this licence before (1), whether it repeats a
--      request (1)
--      4 number of the conversation, 16 hex digits   5 numbers: rate, its period, messages, their period, limit of
--      equal turns, the turn or -1 (then KEYS has no further turns), whether KEYS has the day before (1)
-- Answers {code, the store's time, ...}: the codes are those of `ScriptReply` in script_reply.rs.
local GRANTED, CLOCK, PLACES, RATE, MESSAGES, TOKENS, BUSY, LOST, CONVERSATION = 0, 1, 2, 3, 4, 5, 6, 7, 8
-- The role of a request in the group that shares its message.
local ALONE, OWNS, SHARES, PAID = 0, 1, 2, 3

local gateway, name = ARGV[1], ARGV[2]
local boot, lifetime, input, output, least, limit, period, token_limit, token_period, rate, rate_period, places,
  minute, minute_end, hour, hour_end, day, day_end, month, month_end, reported_before, again =
  struct.unpack('<dddddddddddddddddddddd', ARGV[3])
local now = clock()
local starts, stops = {minute, hour, day, month}, {minute_end, hour_end, day_end, month_end}
for at = 1, 4 do
  if now < starts[at] or now >= stops[at] then return {CLOCK, now} end
end

local account = read_account()
local missing = recount_if_due(account, now)
if counted then save(account, now) end
if missing or is_lost(account, gateway, reported_before == 1) then return {LOST, now} end

-- A repeated request: the reply was late, or an earlier copy arrives only now. A request that has ended is granted
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

local rate_limit, rate_kind, day_limit, day_kind, repeats, turn, has_day_before
local last_key, turns_key = #KEYS, nil -- the last key that belongs to no conversation
if ARGV[4] then
  rate_limit, rate_kind, day_limit, day_kind, repeats, turn, has_day_before = struct.unpack('<ddddddd', ARGV[5])
  last_key = #KEYS - 1 - has_day_before
  if turn >= 0 then
    turns_key, last_key = KEYS[last_key], last_key - 1
  end
end

-- Requests of one id share a message: it is counted once.
local group, role = nil, ALONE
if known then
  role = known[10]
elseif last_key > 2 then
  group = current_group(redis.call('GET', KEYS[3]), now)
  role = (group[3] == 1 and PAID) or (group[4] ~= '' and SHARES) or OWNS
end
local covered = known or role > OWNS

-- A repeated request and a message that is shared are counted already.
local conversation, counted_message, further, has_further = nil, nil, nil, false
if ARGV[4] and not covered then
  local number = string.gsub(ARGV[4], '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
  local packed = redis.call('HGET', KEYS[#KEYS], number)
  if not packed and has_day_before == 1 then packed = redis.call('HGET', KEYS[#KEYS - 1], number) end
  conversation = read_conversation(packed)
  local seconds = math.floor(now / 1000)
  -- Counters without a limit are kept for a minute and an hour, in case a changed plan limits them again.
  local function current(count, is_limited, kind, shortest)
    local at, touched = is_limited and kind or shortest, conversation[1] * 1000
    return touched >= starts[at] and touched < stops[at] and count or 0
  end
  conversation[3] = current(conversation[3], rate_limit >= 0, rate_kind, 1)
  conversation[2] = current(conversation[2], day_limit >= 0, day_kind, 2)
  advance(conversation, seconds)
  local hash = turn >= 0 and turn % HASHES or -1
  local known_turn = find_turn(conversation, hash)
  if hash >= 0 and not known_turn then
    further = read_further(turns_key, number)
    advance(further, seconds)
    known_turn = find_turn(further, hash)
  end
  local reached, resets = nil, 0
  if rate_limit >= 0 and conversation[3] >= rate_limit then
    reached, resets = 1, stops[rate_kind]
  elseif day_limit >= 0 and conversation[2] >= day_limit then
    reached, resets = 2, stops[day_kind]
  elseif known_turn and known_turn[3] >= repeats then
    reached, resets = 3, (seconds - known_turn[2] + SAME_TURN) * 1000
  end
  if reached then
    save(account, now)
    return {CONVERSATION, now, reached, resets}
  end
  has_further = hash >= 0 and count_turn(conversation, further, hash)
  local lengths = {60, 3600, 86400}
  if rate_limit >= 0 then conversation[3] = conversation[3] + 1 end
  if day_limit >= 0 then conversation[2] = conversation[2] + 1 end
  counted_message = {number, seconds, hash, rate_limit >= 0 and lengths[rate_kind] or 0,
    day_limit >= 0 and lengths[day_kind] or 0, starts[3] / 1000}
end

local messages, settled_tokens, extra, more_tokens, forgiven, forgiven_tokens =
  usage(account, period, starts[period])
local held = open_usage(account, period, starts[period])
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
local _, open_tokens = open_usage(account, token_period, starts[token_period])
local tokens = math.max(0, settled_tokens - forgiven_tokens)
if token_limit >= 0 then
  token_limit = token_limit + more_tokens
  local unsettled = math.max(0, token_limit - tokens)
  local left = math.max(0, unsettled - open_tokens)
  -- An answer without a cap could cost any number of tokens: it may use what is left.
  local wanted = output >= 0 and output or left
  -- An embedding has no output; an answer needs at least one token.
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
    if role == OWNS then
      group[4], group[5] = name_without_boot(name), 0
      group[8] = counted_message or false
    end
    group[2] = group[2] + 1
    group[6][#group[6] + 1] = name
    write_group(KEYS[3], group)
  end
  local message = covered and 0 or 1
  local entry = {now + lifetime, message, input, input + math.max(0, cap), starts, boot, gateway, 1,
    0, role, again, not group and counted_message or nil}
  write_entry(name, entry)
  count_open(account.o, entry)
  if not account['u:' .. gateway] then
    write('u:' .. gateway, {boot, 0, empty_windows(), account.e or 0})
  end
  used = used + message
  if conversation then
    local key = KEYS[#KEYS]
    local is_new = redis.call('HLEN', key) == 0
    redis.call('HSET', key, counted_message[1], pack_conversation(conversation))
    if is_new then redis.call('PEXPIRE', key, 2 * DAY) end
    if has_further then write_further(turns_key, counted_message[1], further) end
  end
end
save(account, now)
return {GRANTED, now, cap, used, limit + extra, tokens, token_limit, role}
