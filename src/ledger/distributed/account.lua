-- What the scripts have in common; each is this text and its own.
--
-- KEYS[1] the account of one licence, a hash. Windows come by fours (minute, hour, day, month), a
--         list of them is flat: start, messages, tokens, start, ...
--   u:GATEWAY  {boot, sequence, windows, epoch}   what this gateway has settled; it alone writes it.
--              The epoch is that of its last sync
--   p:GATEWAY  windows                     presumed of it: requests that it did not renew. Gone as
--                                          soon as it speaks again
--   o          {places, earliest, windows, kept, entries} sums over KEYS[2], when its first entry
--              ends, until when both keys are kept, and how many entries there are
--   e          grows when KEYS[2] has not the entries that were counted: what a gateway told before
--              is not all there then
--   r          {start, requests, ...}      requests counted for the rate
--   x:GATEWAY  {start, extra messages, extra tokens, forgiven messages, forgiven tokens, ...}
--              what operators gave through this gateway; it alone writes it
-- KEYS[2] its open requests, a hash by name (GATEWAY:BOOT:NUMBER):
--   {until, message, input, tokens, starts, boot, gateway, place, owes, role, again, counted}
--   Without a place: a message that was decided on and is not told yet (owes 1), or a request that is
--   over, which is kept while the same may still come: it was given up on its way here, or was asked
--   more than once (again 1). A connection that is replaced delivers what was written to it when it
--   likes, also after the answer to a later question, and after the end of the request.
--   Counted: where it is of no group, what a conversation counted of it (see `give_back_talk`), or nil.
-- KEYS[3..] groups of requests that share a message id:
--   {first, requests, charged, owner, wanted, {names}, older, counted}
--   The request that found no message in its group owns it: its entry holds the message as that of a
--   request without an id does, and closes in the same script that takes the charge. The others pay
--   nothing, unless the owner gives back: then one that is open owns it. Wanted: another one was
--   charged, so the owner pays even if it gives back. Older: the group of the same id before, while
--   requests of it are open. The owner is named without its boot. Counted: of its message, as above, or false.
--
-- Lists are in MessagePack: half the size of text, and read in C. Numbers in arguments are eight bytes each, as C
-- has them: to read one from text costs a tenth of a command.

local DAY = 86400 * 1000
local KEEP = 40 * DAY -- longer than any window
local GROUP_LIFE, GROUP_REQUESTS, GROUP_KEEP, GROUP_DEPTH = 600000, 10, 1200000, 8
local DEAD = 70000 -- longer than a connection that fails keeps what was written to it

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
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

local changed = {} -- field, value, ...
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

-- Whether a request is over, and its name kept.
local function is_dead(entry)
  return entry[8] == 0 and entry[9] == 0
end

local function count_open(open, entry)
  open[1] = open[1] + entry[8]
  open[5] = open[5] + 1
  if open[2] == 0 or entry[1] < open[2] then open[2] = entry[1] end
  add(open[3], entry[5], entry[2], entry[4])
end

-- Counts the open requests anew. One whose time is over is charged its message and its input, to
-- the gateway that did not renew it; unless that gateway lives again, then it has charged it itself.
local counted = false
local function recount(account, now)
  counted = true
  local open, presumed = {0, 0, none(), false, 0}, {}
  local flat = redis.call('HGETALL', KEYS[2])
  for at = 1, #flat, 2 do
    local entry = cmsgpack.unpack(flat[at + 1])
    if entry[1] > now then
      count_open(open, entry)
    else
      redis.call('HDEL', KEYS[2], flat[at])
      local known = account['u:' .. entry[7]]
      if not is_dead(entry) and (not known or known[1] <= entry[6]) then
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

local function read_entry(name)
  local packed = redis.call('HGET', KEYS[2], name)
  return packed and cmsgpack.unpack(packed)
end

local function write_entry(name, entry)
  redis.call('HSET', KEYS[2], name, cmsgpack.pack(entry))
end

-- Whether what a gateway once said of this licence is gone: the store was emptied, or is an older copy,
-- or open requests are missing. Nothing is granted then before all gateways have told all they know.
local function is_lost(account, gateway, has_spoken)
  local known = account['u:' .. gateway]
  return has_spoken and (not known or (known[4] or 0) ~= (account.e or 0))
end

-- Counts the open requests where that is due. Entries that were counted and are not there are a loss:
-- whether it is one.
local function look_over(account, now)
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

-- Of the window of this kind that begins at `start`: messages and tokens that are settled, then what operators gave,
-- extra messages and tokens, forgiven messages and tokens. Extras of all gateways add up; what is forgiven is a level,
-- of which the highest holds.
local function usage(account, period, start)
  local messages, tokens, more_messages, more_tokens = 0, 0, 0, 0
  local forgiven_messages, forgiven_tokens = 0, 0
  local at, gift = 3 * period - 2, 5 * period - 4
  for field, value in pairs(account) do
    local kind = string.sub(field, 1, 2)
    if kind == 'x:' then
      if value[gift] == start then
        more_messages, more_tokens = more_messages + value[gift + 1], more_tokens + value[gift + 2]
        forgiven_messages = math.max(forgiven_messages, value[gift + 3])
        forgiven_tokens = math.max(forgiven_tokens, value[gift + 4])
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

-- Open messages and tokens, as `usage`.
local function opened(account, period, start)
  local at = 3 * period - 2
  if not account.o or account.o[3][at] ~= start then return 0, 0 end
  return account.o[3][at + 1], account.o[3][at + 2]
end

-- Whether anything is presumed of a gateway: it may know better.
local function has_presumed(account)
  for field in pairs(account) do
    if string.sub(field, 1, 2) == 'p:' then return 1 end
  end
  return 0
end

-- A request by any boot of its gateway: it may go on in another process.
local function own_name(name)
  local gateway, number = string.match(name, '^(.-):%d+:(%d+)$')
  return gateway and (gateway .. ':' .. number) or name
end

-- The group before, as far as requests of it still stand on its message.
local function unfinished(group, depth)
  if not group or depth > GROUP_DEPTH then return false end
  local older = unfinished(group[7], depth + 1)
  if group[3] == 1 or #group[6] == 0 then return older end
  group[7] = older
  return group
end

-- The group that the next request of an id joins, of what is kept of that id.
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
