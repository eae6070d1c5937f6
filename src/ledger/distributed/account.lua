-- Shared by all scripts: each script is this text followed by its own.
--
-- KEYS[1] the account of one licence, a hash. A list of windows has four (minute, hour, day, month) and is flat:
--         start, messages, tokens, start, ...
--   u:GATEWAY  {boot, sequence, windows, epoch}   settled by this gateway, which alone writes it. The
--              epoch is that of its last sync
--   p:GATEWAY  windows                     presumed usage: requests that the gateway did not renew.
--                                          Removed by its next report
--   o          {places, earliest, windows, kept, entries} sums over KEYS[2], when its first entry
--              ends, until when both keys are kept, and the number of entries
--   e          epoch; grows when entries that were counted are missing in KEYS[2]: earlier reports
--              are incomplete then
--   r          {start, requests, ...}      requests counted for the rate
--   x:GATEWAY  {start, extra messages, extra tokens, forgiven messages, forgiven tokens, ...}
--              grants of operators through this gateway, which alone writes it
-- KEYS[2] its open requests, a hash by name (GATEWAY:BOOT:NUMBER):
--   {until, message, input, tokens, starts, boot, gateway, place, debt, role, again, counted}
--   Without a place: a message that is charged and not reported yet (debt 1), or the name of a request that
--   has ended, kept while a copy of it may still arrive: it was cancelled on its way, or was sent more than
--   once (again 1). A replaced connection may deliver what was written to it at any time, even after the reply
--   to a later command and after the end of the request.
--   Counted: without a group, what a conversation counted for it (see `return_message`), or nil.
-- KEYS[3..] groups of requests that share a message id:
--   {first, requests, charged, owner, wanted, {names}, older, counted}
--   The request that found no message in its group owns it: its entry holds the message like that of a
--   request without an id, and is closed by the same script that records the charge. The others pay nothing,
--   unless the owner returns the message: then an open one becomes the owner. Wanted: another request was
--   charged, so the owner pays even if it returns the message. Older: the previous group of the same id, while
--   requests of it are open. The owner is named without its boot. Counted: for its message, as above, or false.
--
-- Lists are in MessagePack: half the size of text, and parsed in C. Numbers in arguments are eight bytes each, as in
-- C: parsing one from text costs a tenth of a command.

local DAY = 86400 * 1000
local KEEP = 40 * DAY -- longer than any window
local GROUP_LIFE, GROUP_REQUESTS, GROUP_KEEP, GROUP_DEPTH = 600000, 10, 1200000, 8
local KEEP_ENDED = 70000 -- longer than a failing connection may hold back what was written to it

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function empty_windows()
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
end

-- Adds to the windows with these starts; a newer window replaces an older one.
local function add_usage(windows, starts, messages, tokens)
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

local changed = {} -- field, value, ...
local function write(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = cmsgpack.pack(value)
end

-- Writes all changed fields at once. Extends the expiry of both keys at most once a day.
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

-- Whether the entry is only the name of a request that has ended.
local function is_ended(entry)
  return entry[8] == 0 and entry[9] == 0
end

local function count_open(open, entry)
  open[1] = open[1] + entry[8]
  open[5] = open[5] + 1
  if open[2] == 0 or entry[1] < open[2] then open[2] = entry[1] end
  add_usage(open[3], entry[5], entry[2], entry[4])
end

-- Counts the open requests anew. The message and input of an expired request are charged to the gateway that
-- did not renew it; unless that gateway has restarted since, then it has charged them itself.
local counted = false
local function recount(account, now)
  counted = true
  local open, presumed = {0, 0, empty_windows(), false, 0}, {}
  local flat = redis.call('HGETALL', KEYS[2])
  for at = 1, #flat, 2 do
    local entry = cmsgpack.unpack(flat[at + 1])
    if entry[1] > now then
      count_open(open, entry)
    else
      redis.call('HDEL', KEYS[2], flat[at])
      local known = account['u:' .. entry[7]]
      if not is_ended(entry) and (not known or known[1] <= entry[6]) then
        local field = 'p:' .. entry[7]
        account[field] = account[field] or empty_windows()
        add_usage(account[field], entry[5], entry[2], entry[3])
        presumed[field] = true
      end
    end
  end
  for field in pairs(presumed) do write(field, account[field]) end
  account.o = open -- `save` writes it with a new expiry
end

local function read_entry(name)
  local packed = redis.call('HGET', KEYS[2], name)
  return packed and cmsgpack.unpack(packed)
end

local function write_entry(name, entry)
  redis.call('HSET', KEYS[2], name, cmsgpack.pack(entry))
end

-- Whether an earlier report of a gateway is lost: the store was emptied, is an older copy, or open requests are
-- missing. Then nothing is granted before all gateways have sent their full state.
local function is_lost(account, gateway, reported_before)
  local known = account['u:' .. gateway]
  return reported_before and (not known or (known[4] or 0) ~= (account.e or 0))
end

-- Counts the open requests if an entry has expired or entries are missing; whether entries are missing, which
-- means that the store has lost data.
local function recount_if_due(account, now)
  local open = account.o
  local missing = open and open[5] and open[5] ~= redis.call('HLEN', KEYS[2])
  if missing then
    account.e = (account.e or 0) + 1
    write('e', account.e)
  elseif open and open[5] and (open[2] == 0 or open[2] > now) then
    return false
  end
  recount(account, now)
  return missing
end

-- For the window of this period that begins at `start`: settled messages and tokens, then grants of operators: extra
-- messages and tokens, forgiven messages and tokens. Extras of all gateways add up; of forgiven amounts the highest
-- counts.
local function usage(account, period, start)
  local messages, tokens, more_messages, more_tokens = 0, 0, 0, 0
  local forgiven_messages, forgiven_tokens = 0, 0
  local at, grant_at = 3 * period - 2, 5 * period - 4
  for field, value in pairs(account) do
    local kind = string.sub(field, 1, 2)
    if kind == 'x:' then
      if value[grant_at] == start then
        more_messages, more_tokens = more_messages + value[grant_at + 1], more_tokens + value[grant_at + 2]
        forgiven_messages = math.max(forgiven_messages, value[grant_at + 3])
        forgiven_tokens = math.max(forgiven_tokens, value[grant_at + 4])
      end
    else
      local windows = (kind == 'u:' and value[3]) or (kind == 'p:' and value)
      if windows and windows[at] == start then
        messages, tokens = messages + windows[at + 1], tokens + windows[at + 2]
      end
    end
  end
  return messages, tokens, more_messages, more_tokens, forgiven_messages, forgiven_tokens
end

-- Open messages and tokens of the same window.
local function open_usage(account, period, start)
  local at = 3 * period - 2
  if not account.o or account.o[3][at] ~= start then return 0, 0 end
  return account.o[3][at + 1], account.o[3][at + 2]
end

-- Whether usage of any gateway is presumed: a report of that gateway may correct it.
local function has_presumed(account)
  for field in pairs(account) do
    if string.sub(field, 1, 2) == 'p:' then return 1 end
  end
  return 0
end

-- The name without the boot: a request may continue in another process of its gateway.
local function name_without_boot(name)
  local gateway, number = string.match(name, '^(.-):%d+:(%d+)$')
  return gateway and (gateway .. ':' .. number) or name
end

-- The previous group, if requests of it still depend on its message.
local function unfinished(group, depth)
  if not group or depth > GROUP_DEPTH then return false end
  local older = unfinished(group[7], depth + 1)
  if group[3] == 1 or #group[6] == 0 then return older end
  group[7] = older
  return group
end

-- The group that the next request of an id joins.
local function current_group(packed, now)
  local group = packed and cmsgpack.unpack(packed)
  if not group or now - group[1] >= GROUP_LIFE or group[2] >= GROUP_REQUESTS then
    return {now, 0, 0, '', 0, {}, unfinished(group, 1), false}
  end
  return group
end

local function write_group(key, group)
  redis.call('SET', key, cmsgpack.pack(group), 'PX', GROUP_KEEP)
end
