-- What the scripts have in common; each is this text and its own.
--
-- KEYS[1] the account of one licence, a hash. Windows come by fours (minute, hour, day, month), a
--         list of them is flat: start, messages, tokens, start, ...
--   u:GATEWAY  {boot, sequence, windows}   what this gateway has settled; it alone writes it
--   p:GATEWAY  windows                     presumed of it: requests that it did not renew. Gone as
--                                          soon as it speaks again
--   o          {places, earliest, windows, kept} sums over KEYS[2], when its first entry ends, and
--              until when both keys are kept
--   r          {start, requests, ...}      requests counted for the rate
--   x:GATEWAY  {start, extra messages, extra tokens, forgiven messages, forgiven tokens, ...}
--              what operators gave through this gateway; it alone writes it
-- KEYS[2] its open requests, a hash by name:
--   {until, message, input, tokens, starts, boot, gateway, place}
--   A message that requests with one id share is an entry of its own: no place, no tokens.
--
-- Lists are in MessagePack: half the size of text, and read in C.

local DAY = 86400 * 1000
local KEEP = 40 * DAY -- longer than any window

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function numbers(from, count)
  local list = {}
  for at = 1, count do list[at] = tonumber(ARGV[from + at - 1]) end
  return list
end

local function none()
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
end

-- Adds to the windows with these starts; a newer window replaces an older one.
local function add(windows, starts, messages, tokens)
  for period = 1, 4 do
    local at = 3 * period - 2
    if starts[period] > windows[at] then
      windows[at], windows[at + 1], windows[at + 2] = starts[period], 0, 0
    end
    if starts[period] == windows[at] then
      windows[at + 1] = math.max(0, windows[at + 1] + messages)
      windows[at + 2] = math.max(0, windows[at + 2] + tokens)
    end
  end
end

local function read_account()
  local account, flat = {}, redis.call('HGETALL', KEYS[1])
  for at = 1, #flat, 2 do account[flat[at]] = cmsgpack.unpack(flat[at + 1]) end
  return account
end

local changed = {}
local function write(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = cmsgpack.pack(value)
end

-- Writes what changed, in one go. Keys live on for as long as somebody comes once a day.
local function save(account, now)
  local open = account.o
  if open then
    local is_due = not open[4] or open[4] < now + KEEP - DAY
    if is_due then open[4] = now + KEEP end
    write('o', open)
    redis.call('HSET', KEYS[1], unpack(changed))
    if is_due then
      redis.call('PEXPIRE', KEYS[1], KEEP)
      redis.call('PEXPIRE', KEYS[2], KEEP)
    end
  end
end

local function count_open(open, entry)
  open[1] = open[1] + entry[8]
  if open[2] == 0 or entry[1] < open[2] then open[2] = entry[1] end
  add(open[3], entry[5], entry[2], entry[4])
end

-- Counts the open requests anew. One whose time is over is charged its message and its input, to
-- the gateway that did not renew it; unless that gateway lives again, then it has charged it itself.
local function recount(account, now)
  local open, presumed = {0, 0, none()}, {}
  local flat = redis.call('HGETALL', KEYS[2])
  for at = 1, #flat, 2 do
    local entry = cmsgpack.unpack(flat[at + 1])
    if entry[1] > now then
      count_open(open, entry)
    else
      redis.call('HDEL', KEYS[2], flat[at])
      local known = account['u:' .. entry[7]]
      if not known or known[1] <= entry[6] then
        local field = 'p:' .. entry[7]
        account[field] = account[field] or none()
        add(account[field], entry[5], entry[2], entry[3])
        presumed[field] = true
      end
    end
  end
  for field in pairs(presumed) do write(field, account[field]) end
  account.o = open -- kept anew
end

-- Closes open requests; what they held is free.
local function close(account, names)
  if #names == 0 then return end
  local known, open = redis.call('HMGET', KEYS[2], unpack(names)), account.o
  redis.call('HDEL', KEYS[2], unpack(names))
  for at = 1, #names do
    if known[at] and open then
      local entry = cmsgpack.unpack(known[at])
      open[1] = math.max(0, open[1] - entry[8])
      add(open[3], entry[5], -entry[2], -entry[4])
    end
  end
end

-- Whether what a gateway once said of this licence is gone: the store was emptied, or is an older copy.
-- Nothing is written then before all gateways know.
local function is_lost(account, gateway, has_spoken)
  return has_spoken == '1' and not account['u:' .. gateway]
end

-- The numbers in a text, or nil where there are none.
local function numbers_in(text)
  if text == '' then return nil end
  local list = {}
  for number in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(number) end
  return list
end

-- Takes what a gateway says it has settled and operators gave through it, unless it has said
-- something newer; whether it did.
local function settle(account, gateway, boot, sequence, windows, given)
  local field = 'u:' .. gateway
  local known = account[field]
  if known and (known[1] > boot or (known[1] == boot and known[2] >= sequence)) then return false end
  account[field] = {boot, sequence, windows}
  write(field, account[field])
  if account['p:' .. gateway] then
    redis.call('HDEL', KEYS[1], 'p:' .. gateway)
    account['p:' .. gateway] = nil
  end
  local gifts = 'x:' .. gateway
  if given then
    write(gifts, given)
  elseif account[gifts] then
    redis.call('HDEL', KEYS[1], gifts)
  end
  account[gifts] = given
  return true
end

-- Settled messages and tokens of the window of this kind that begins at `start`.
local function settled(account, period, start)
  local messages, tokens, at = 0, 0, 3 * period - 2
  for field, value in pairs(account) do
    local kind = string.sub(field, 1, 2)
    local windows = (kind == 'u:' and value[3]) or (kind == 'p:' and value)
    if windows and windows[at] == start then
      messages, tokens = messages + windows[at + 1], tokens + windows[at + 2]
    end
  end
  return messages, tokens
end

-- Open messages and tokens, as `settled`.
local function opened(account, period, start)
  local at = 3 * period - 2
  if not account.o or account.o[3][at] ~= start then return 0, 0 end
  return account.o[3][at + 1], account.o[3][at + 2]
end

-- What operators gave: extra messages, extra tokens, forgiven messages, forgiven tokens. Extras of all
-- gateways add up; what is forgiven is a level, of which the highest holds.
local function adjusted(account, period, start)
  local messages, tokens, forgiven_messages, forgiven_tokens = 0, 0, 0, 0
  local at = 5 * period - 4
  for field, given in pairs(account) do
    if string.sub(field, 1, 2) == 'x:' and given[at] == start then
      messages, tokens = messages + given[at + 1], tokens + given[at + 2]
      forgiven_messages = math.max(forgiven_messages, given[at + 3])
      forgiven_tokens = math.max(forgiven_tokens, given[at + 4])
    end
  end
  return messages, tokens, forgiven_messages, forgiven_tokens
end
