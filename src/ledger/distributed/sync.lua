-- The full state of a licence at one gateway: settled totals and open requests. Entries of this gateway that
-- it does not list are removed. Repairs whatever was lost in the store or on the way.
-- ARGV 1 gateway  2 numbers: boot, sequence, windows  3 grants of operators, as a text or empty
--      4 whether it has reported this licence before (1)  5 lifetime, ms  6 horizon: requests from this number on
--      are not in the list  7 count of names to keep as they are, then the names, then the count of open requests
--      and for each: name, message, input, tokens, four starts, then the requests that ended: see `finish`
-- Answers {1, names of requests that have to pay a shared message}, or {2} when an earlier report of this
-- gateway is lost.
-- A key of the wrong type belongs to no version of the gateway, and every script of this licence would fail on it.
for _, key in ipairs(KEYS) do
  local kind, is_group = redis.call('TYPE', key).ok, string.find(key, ':message:', 1, true)
  if kind ~= (is_group and 'string' or 'hash') and kind ~= 'none' then redis.call('DEL', key) end
end
local now = clock()
local gateway, boot = ARGV[1], struct.unpack('<d', ARGV[2])
local account = read_account()
if is_lost(account, gateway, ARGV[4] == '1') then return {2} end
-- A newer report has arrived already: this one changes nothing.
local given = parse_numbers(ARGV[3])
if not settle(account, gateway, ARGV[2], given) then return {1} end
-- The report is complete: it belongs to the current epoch.
local own_share = account['u:' .. gateway]
own_share[4] = account.e or 0
write('u:' .. gateway, own_share)
-- Placeholder sums; `recount` below computes them.
account.o = {0, 0, empty_windows(), account.o and account.o[4] or false, 0}

local named = {}
local kept = tonumber(ARGV[7])
for at = 8, 7 + kept do named[ARGV[at]] = true end
local first = 9 + kept
local last = first + 8 * tonumber(ARGV[first - 1]) - 1
for at = first, last, 8 do
  local name, message = ARGV[at], tonumber(ARGV[at + 1])
  named[name] = true
  local known = read_entry(name)
  -- The gateway does not know of a message that was passed on to the request here.
  if known then message = math.max(message, known[2]) end
  write_entry(name, {now + ARGV[5], message, tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]),
    numbers(at + 4, 4), boot, gateway, 1, 0, known and known[10] or 0, known and known[11] or 0,
    known and known[12] or nil})
end
local must_pay_names = finish(account, now, last + 1)
for _, name in ipairs(must_pay_names) do named[name] = true end

local horizon = tonumber(ARGV[6])
local flat = redis.call('HGETALL', KEYS[2])
for at = 1, #flat, 2 do
  local entry = cmsgpack.unpack(flat[at + 1])
  if entry[7] == gateway and not named[flat[at]] then
    local number = tonumber(string.match(flat[at], '(%d+)$') or '')
    -- An entry without a place ends when its gateway reports the end, or when its time is over.
    if entry[8] == 1 and (entry[6] < boot or (number and number < horizon)) then
      redis.call('HDEL', KEYS[2], flat[at])
    end
  end
end
recount(account, now)
save(account, now)
return {1, unpack(must_pay_names)}
