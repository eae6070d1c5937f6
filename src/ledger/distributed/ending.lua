-- How requests end: what the scripts that settle, sync and cancel have in common beside account.lua.

local function numbers(from, count)
  local list = {}
  for at = 1, count do list[at] = tonumber(ARGV[from + at - 1]) end
  return list
end

-- Keeps the name of a request that is over.
local function bury(account, now, name, boot, gateway)
  local entry = {now + DEAD, 0, 0, 0, {0, 0, 0, 0}, boot, gateway, 0, 0, 0, 1}
  write_entry(name, entry)
  count_open(account.o, entry)
end

-- Closes open requests; what they held is free. `returned` has the key of the conversations of those whose
-- message is given back.
local function close(account, now, names, returned)
  if #names == 0 then return end
  local known, open, closed, gone = redis.call('HMGET', KEYS[2], unpack(names)), account.o, {}, {}
  for at, name in ipairs(names) do
    local entry = known[at] and cmsgpack.unpack(known[at])
    if entry and not closed[name] and not is_dead(entry) then
      closed[name] = true
      if returned[name] then give_back_talk(returned[name], entry[12]) end
      open[1] = math.max(0, open[1] - entry[8])
      add(open[3], entry[5], -entry[2], -entry[4])
      open[5] = open[5] - 1
      if entry[11] == 1 then
        bury(account, now, name, entry[6], entry[7])
      else
        gone[#gone + 1] = name
      end
    end
  end
  if #gone > 0 then redis.call('HDEL', KEYS[2], unpack(gone)) end
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
local function settle(account, gateway, numbers, given)
  local boot, sequence = struct.unpack('<dd', numbers)
  local windows = {struct.unpack('<dddddddddddd', numbers, 17)}
  windows[13] = nil -- where `unpack` stopped
  local field = 'u:' .. gateway
  local known = account[field]
  if known and (known[1] > boot or (known[1] == boot and known[2] >= sequence)) then return false end
  account[field] = {boot, sequence, windows, known and known[4] or account.e or 0}
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

local function place_of(group, own)
  for at, name in ipairs(group[6]) do
    if own_name(name) == own then return at end
  end
end

-- The owner gave the message back: one that is open has it now, or nobody.
local function pass_on(account, group)
  group[4] = ''
  for _, name in ipairs(group[6]) do
    local entry = read_entry(name)
    if entry and entry[8] == 1 then
      entry[2] = 1
      write_entry(name, entry)
      add(account.o[3], entry[5], 1, 0)
      group[4] = own_name(name)
      return
    end
  end
end

-- Its entry stays, without a place, and holds the message until the gateway has told that, too.
local function owe(account, name, entry)
  local open = account.o
  open[1] = math.max(0, open[1] - entry[8])
  add(open[3], entry[5], 1 - entry[2], -entry[4])
  entry[2], entry[3], entry[4], entry[8], entry[9] = 1, 0, 0, 0, 1
  write_entry(name, entry)
end

-- A request ended that costs a message, and of which the store did not know that it has an id, or not
-- that there is one. Whether it has to pay: none of its group has. Its name is kept, so that this is
-- decided once.
local function join(account, now, key, name, entry)
  local group = current_group(redis.call('GET', key), now)
  group[2] = group[2] + 1
  local owes = group[3] == 0 and group[4] == ''
  if owes then
    group[3] = 1
  elseif group[3] == 0 then
    group[5] = 1
  end
  write_group(key, group)
  if not entry then
    local gateway, boot = ARGV[1], struct.unpack('<d', ARGV[2])
    bury(account, now, name, boot, gateway)
    entry = read_entry(name)
  end
  entry[11] = 1
  if owes then owe(account, name, entry) else write_entry(name, entry) end
  return owes
end

-- The request `name` of a group ended. `state`: 2 it is charged the message, and what its gateway
-- tells has it in it; 1 it is charged, and has paid nothing; 4 the same, of one that was granted without
-- the store; 0 it gives back; 3 it was given up.
-- `talks`: the key of its conversations, where those are to have a message back.
-- Whether it has to pay after all. Said again, it changes nothing.
local function leave(account, now, key, name, state, talks)
  local entry = read_entry(name)
  local packed = redis.call('GET', key)
  local whole, own = packed and cmsgpack.unpack(packed), own_name(name)
  local group, at = whole, nil
  while group do
    at = place_of(group, own)
    if at then break end
    group = group[7]
  end
  if not group then
    if state == 4 and not (entry and entry[8] == 0) then
      return join(account, now, key, name, entry)
    end
    return entry and entry[9] == 1
  end
  table.remove(group[6], at)
  if state == 3 then group[2] = group[2] - 1 end
  local owes = false
  if group[3] == 0 then
    local owns = group[4] == own
    if state == 2 then
      group[3] = 1
    elseif state == 1 and not owns and group[4] ~= '' then
      group[5] = 1
    elseif state == 1 or (owns and group[5] == 1) then
      group[3], owes = 1, true
    elseif owns then
      pass_on(account, group)
      if talks and group[4] == '' then
        give_back_talk(talks, group[8])
        group[8] = false
      end
    end
  end
  redis.call('SET', key, cmsgpack.pack(whole), 'KEEPTTL')
  if owes and entry then owe(account, name, entry) end
  return owes
end

-- Ends requests: from ARGV[at] on a count and names, then a count of requests whose message a conversation
-- is to have back, and for each its name and the place of the conversations in KEYS; then for each of a group
-- its name, the place of the group in KEYS, and its state. The names of those that have to pay after all.
local function finish(account, now, at)
  local owing, names, count, returned = {}, {}, tonumber(ARGV[at]), {}
  local groups = at + count + 2 + 2 * tonumber(ARGV[at + count + 1])
  for place = at + count + 2, groups - 1, 2 do
    returned[ARGV[place]] = KEYS[tonumber(ARGV[place + 1])]
  end
  local function done(name)
    names[#names + 1] = name
    if #names == 1000 then -- Lua's stack holds some thousand
      close(account, now, names, returned)
      names = {}
    end
  end
  for place = at + 1, at + count do done(ARGV[place]) end
  for place = groups, #ARGV, 3 do
    local name = ARGV[place]
    local key, state = KEYS[tonumber(ARGV[place + 1])], tonumber(ARGV[place + 2])
    if leave(account, now, key, name, state, returned[name]) then
      owing[#owing + 1] = name
    else
      done(name)
    end
  end
  close(account, now, names, returned)
  return owing
end
