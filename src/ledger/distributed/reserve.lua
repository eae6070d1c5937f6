-- Grants a request or says what stands in the way: rate, places, messages and tokens in one go.
-- KEYS[3] the group of its message id, if it has one
-- ARGV  1 gateway   2 boot   3 name   4 lifetime, ms   5 input   6 output or -1   7 least output
--       8 messages, 9 their period   10 tokens, 11   12 rate, 13   14 places   (-1: no limit)
--      15-22 start and end of each window, as the gateway sees the time   23 whether the gateway has
--      spoken of this licence before (1)   24 whether it asks again about the same request (1)
-- Answers {code, the store's time, ...}: the codes are those of `Answer` in answer.rs.
local GRANTED, CLOCK, PLACES, RATE, MESSAGES, TOKENS, BUSY, LOST = 0, 1, 2, 3, 4, 5, 6, 7
-- What a request is to the message of its group.
local ALONE, OWNS, SHARES, PAID = 0, 1, 2, 3

local now = clock()
local starts = {}
for period = 1, 4 do
  local start, stop = tonumber(ARGV[13 + 2 * period]), tonumber(ARGV[14 + 2 * period])
  if now < start or now >= stop then return {CLOCK, now} end
  starts[period] = start
end

local gateway, boot, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local input, output, least = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local account = read_account()
local missing = look_over(account, now)
if counted then save(account, now) end
if missing or is_lost(account, gateway, ARGV[23]) then return {LOST, now} end

-- Asked before: the answer came too late, or one of the questions does. One that is over is granted
-- nothing.
local known, again = read_entry(name), tonumber(ARGV[24])
if known and known[8] == 0 then return {BUSY, now, 0} end
if known and again == 1 and known[11] ~= 1 then
  known[11] = 1
  write_entry(name, known)
end

local places = tonumber(ARGV[14])
if not known and places >= 0 and account.o[1] >= places then return {PLACES, now} end

local rates = account.r or {0, 0, 0, 0, 0, 0, 0, 0}
for period = 1, 4 do
  local at = 2 * period - 1
  if rates[at] ~= starts[period] then rates[at], rates[at + 1] = starts[period], 0 end
end
local rate, rate_period = tonumber(ARGV[12]), tonumber(ARGV[13])
if rate >= 0 and not known then
  if rates[2 * rate_period] >= rate then return {RATE, now} end
  for period = 1, 4 do rates[2 * period] = rates[2 * period] + 1 end
  write('r', rates)
end

-- A message that requests of this id have, or hold, is not needed again.
local group, role = nil, ALONE
if known then
  role = known[10]
elseif KEYS[3] then
  group = current_group(redis.call('GET', KEYS[3]), now)
  role = (group[3] == 1 and PAID) or (group[4] ~= '' and SHARES) or OWNS
end
local covered = known or role > OWNS

local limit, period = tonumber(ARGV[8]), tonumber(ARGV[9])
local messages = settled(account, period, starts[period])
local held = opened(account, period, starts[period])
local extra, _, forgiven = adjusted(account, period, starts[period])
local used = math.max(0, messages + held - forgiven)
if limit >= 0 and not covered and used >= limit + extra then
  save(account, now)
  return {MESSAGES, now, used, limit + extra, has_presumed(account)}
end

local cap = output
local token_limit, token_period = tonumber(ARGV[10]), tonumber(ARGV[11])
local _, tokens = settled(account, token_period, starts[token_period])
local _, open_tokens = opened(account, token_period, starts[token_period])
local _, extra_tokens, _, forgiven_tokens = adjusted(account, token_period, starts[token_period])
tokens = math.max(0, tokens - forgiven_tokens)
if token_limit >= 0 then
  token_limit = token_limit + extra_tokens
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
  local entry = {now + ARGV[4], message, input, input + math.max(0, cap), starts, boot, gateway, 1,
    0, role, again}
  write_entry(name, entry)
  count_open(account.o, entry)
  if not account['u:' .. gateway] then
    write('u:' .. gateway, {boot, 0, none(), account.e or 0})
  end
  used = used + message
end
save(account, now)
return {GRANTED, now, cap, used, limit + extra, tokens, token_limit, role}
