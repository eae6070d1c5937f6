-- The end of requests: shared by the scripts that settle, sync and cancel, in addition to account.lua.

local function numbers(from, count)
  local list = {}
  for at = 1, count do list[at] = tonumber(ARGV[from + at - 1]) end
  return list
end

-- Keeps the name of a request that has ended.
local function keep_ended_name(account, now, name, boot, gateway)
  local entry = {now + KEEP_ENDED, 0, 0, 0, {0, 0, 0, 0}, boot, gateway, 0, 0, 0, 1}
  write_entry(name, entry)
  count_open(account.o, entry)
end

-- Closes open requests and releases what they held. `returned` has the key of the conversations for each request
-- whose message is returned.
local function close(account, now, names, returned)
  if #names == 0 then return end
  local known, open, closed, gone = redis.call('HMGET', KEYS[2], unpack(names)), account.o, {}, {}
  for at, name in ipairs(names) do
    local entry = known[at] and cmsgpack.unpack(known[at])
    if entry and not closed[name] and not is_ended(entry) then
      closed[name] = true
      if returned[name] then return_message(returned[name], entry[12]) end
      open[1] = math.max(0, open[1] - entry[8])
      add_usage(open[3], entry[5], -entry[2], -entry[4])
      open[5] = open[5] - 1
      if entry[11] == 1 then
        keep_ended_name(account, now, name, entry[6], entry[7])
      else
        gone[#gone + 1] = name
      end
    end
  end
  if #gone > 0 then redis.call('HDEL', KEYS[2], unpack(gone)) end
end

-- The numbers in a text, or nil where there are none.
local function parse_numbers(text)
  if text == '' then return nil end
  local list = {}
  for number in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(number) end
  return list
end

-- Records the settled totals and grants of a gateway, unless a newer report has arrived already; whether they
-- were recorded.
local function settle(account, gateway, numbers, given)
  local boot, sequence = struct.unpack('<dd', numbers)
  local windows = {struct.unpack('<dddddddddddd', numbers, 17)}
  windows[13] = nil -- position after the last number, added by `unpack`
  local field = 'u:' .. gateway
  local known = account[field]
  if known and (known[1] > boot or (known[1] == boot and known[2] >= sequence)) then return false end
  account[field] = {boot, sequence, windows, known and known[4] or account.e or 0}
  write(field, account[field])
  if account['p:' .. gateway] then
    redis.call('HDEL', KEYS[1], 'p:' .. gateway)
    account['p:' .. gateway] = nil
  end
  local grants_field = 'x:' .. gateway
  if given then
    write(grants_field, given)
  elseif account[grants_field] then
    redis.call('HDEL', KEYS[1], grants_field)
  end
  account[grants_field] = given
  return true
end

local function find_member(group, own)
  for at, name in ipairs(group[6]) do
    if name_without_boot(name) == own then return at end
  end
end

-- The owner returned the message: an open request of the group becomes its owner, if there is one.
local function pass_message_on(account, group)
  group[4] = ''
  for _, name in ipairs(group[6]) do
    local entry = read_entry(name)
    if entry and entry[8] == 1 then
      entry[2] = 1
      write_entry(name, entry)
      add_usage(account.o[3], entry[5], 1, 0)
      group[4] = name_without_boot(name)
      return
    end
  end
end

-- Keeps the entry, without a place, as the holder of the message until the gateway has reported the charge.
local function leave_debt(account, name, entry)
  local open = account.o
  open[1] = math.max(0, open[1] - entry[8])
  add_usage(open[3], entry[5], 1 - entry[2], -entry[4])
  entry[2], entry[3], entry[4], entry[8], entry[9] = 1, 0, 0, 0, 1
  write_entry(name, entry)
end

-- A request ended that costs a message, and the store did not know its id, or not the request itself. It has to
-- pay if no request of its group has. Its name is kept, so that this is decided once.
local function join(account, now, key, name, entry)
  local group = current_group(redis.call('GET', key), now)
  group[2] = group[2] + 1
  local must_pay = group[3] == 0 and group[4] == ''
  if must_pay then
    group[3] = 1
  elseif group[3] == 0 then
    group[5] = 1
  end
  write_group(key, group)
  if not entry then
    local gateway, boot = ARGV[1], struct.unpack('<d', ARGV[2])
    keep_ended_name(account, now, name, boot, gateway)
    entry = read_entry(name)
  end
  entry[11] = 1
  if must_pay then leave_debt(account, name, entry) else write_entry(name, entry) end
  return must_pay
end

-- The request `name` of a group ended. `state`: 2 it is charged the message, and the totals of its gateway include
-- it; 1 it is charged, and has paid nothing; 4 the same, for a request granted without the store; 0 it returns the
-- message; 3 it was cancelled.
-- `conversations`: the key of its conversations, if a message is to be returned to them.
-- Answers whether the request has to pay after all. A repeated call changes nothing.
local function leave(account, now, key, name, state, conversations)
  local entry = read_entry(name)
  local packed = redis.call('GET', key)
  local whole, own = packed and cmsgpack.unpack(packed), name_without_boot(name)
  local group, at = whole, nil
  while group do
    at = find_member(group, own)
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
  local must_pay = false
  if group[3] == 0 then
    local owns = group[4] == own
    if state == 2 then
      group[3] = 1
    elseif state == 1 and not owns and group[4] ~= '' then
      group[5] = 1
    elseif state == 1 or (owns and group[5] == 1) then
      group[3], must_pay = 1, true
    elseif owns then
      pass_message_on(account, group)
      if conversations and group[4] == '' then
        return_message(conversations, group[8])
        group[8] = false
      end
    end
  end
  redis.call('SET', key, cmsgpack.pack(whole), 'KEEPTTL')
  if must_pay and entry then leave_debt(account, name, entry) end
  return must_pay
end

-- Ends requests. ARGV from `at` on: a count and names; a count of requests whose message is returned to a
-- conversation, and for each its name and the place of the conversations in KEYS; then for each request of a group
-- its name, the place of the group in KEYS, and its state. Answers the names of those that have to pay after all.
local function finish(account, now, at)
  local must_pay_names, names, count, returned = {}, {}, tonumber(ARGV[at]), {}
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
      must_pay_names[#must_pay_names + 1] = name
    else
      done(name)
    end
  end
  close(account, now, names, returned)
  return must_pay_names
end
