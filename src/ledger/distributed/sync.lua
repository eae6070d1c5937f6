-- All that a gateway knows of a licence: what it has settled and which requests are open. What is
-- here of it and is not among them is gone. Makes good whatever was lost, here or on the way.
-- ARGV 1 gateway  2 numbers: boot, sequence, windows  3 what operators gave, as a text or empty
--      4 whether it has spoken of this licence before (1)  5 lifetime, ms  6 horizon: its requests from this number
--      on it does not speak of  7 count of names to keep as they are, then the names, then the count of open requests
--      and for each: name, message, input, tokens, four starts, then the requests that ended: see `finish`
-- Answers {1, names of requests that have to pay a shared message}, or {2} when what it said before
-- is gone.
-- A key of another type is nobody's: it would keep this licence out for ever.
for _, key in ipairs(KEYS) do
  local kind, is_group = redis.call('TYPE', key).ok, string.find(key, ':message:', 1, true)
  if kind ~= (is_group and 'string' or 'hash') and kind ~= 'none' then redis.call('DEL', key) end
end
local now = clock()
local gateway, boot = ARGV[1], struct.unpack('<d', ARGV[2])
local account = read_account()
if is_lost(account, gateway, ARGV[4] == '1') then return {2} end
-- One that was overtaken on the way says nothing.
local given = numbers_in(ARGV[3])
if not settle(account, gateway, ARGV[2], given) then return {1} end
-- All of it is said now.
local told = account['u:' .. gateway]
told[4] = account.e or 0
write('u:' .. gateway, told)
-- Sums until they are counted anew below.
account.o = {0, 0, none(), account.o and account.o[4] or false, 0}

local named = {}
local kept = tonumber(ARGV[7])
for at = 8, 7 + kept do named[ARGV[at]] = true end
local first = 9 + kept
local last = first + 8 * tonumber(ARGV[first - 1]) - 1
for at = first, last, 8 do
  local name, message = ARGV[at], tonumber(ARGV[at + 1])
  named[name] = true
  local known = read_entry(name)
  -- A message that was passed on to it here is not known there.
  if known then message = math.max(message, known[2]) end
  write_entry(name, {now + ARGV[5], message, tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]),
    numbers(at + 4, 4), boot, gateway, 1, 0, known and known[10] or 0, known and known[11] or 0,
    known and known[12] or nil})
end
local owing = finish(account, now, last + 1)
for _, name in ipairs(owing) do named[name] = true end

local horizon = tonumber(ARGV[6])
local flat = redis.call('HGETALL', KEYS[2])
for at = 1, #flat, 2 do
  local entry = cmsgpack.unpack(flat[at + 1])
  if entry[7] == gateway and not named[flat[at]] then
    local number = tonumber(string.match(flat[at], '(%d+)$') or '')
    -- One without a place ends when it is told, or with its time.
    if entry[8] == 1 and (entry[6] < boot or (number and number < horizon)) then
      redis.call('HDEL', KEYS[2], flat[at])
    end
  end
end
recount(account, now)
save(account, now)
return {1, unpack(owing)}
