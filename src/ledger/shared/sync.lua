-- All that a gateway knows of a licence: what it has settled and which requests are open. What is
-- here of it and is not among them is gone. Makes good whatever was lost, here or on the way.
-- ARGV 1 gateway  2 boot  3 sequence  4-15 windows  16 what operators gave, as a text or empty
--      17 whether it has spoken of this licence before (1)  18 lifetime, ms  19 horizon: its requests
--      from this number on it does not speak of  20 count of names to keep as they are, then the
--      names, then for each open request: name, message, input, tokens, four starts
-- Answers 1, or 2 when what it said before is gone.
-- A key of another type is nobody's: it would keep this licence out for ever.
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end
local now = clock()
local gateway, boot = ARGV[1], tonumber(ARGV[2])
local account = read_account()
if is_lost(account, gateway, ARGV[17]) then return 2 end
-- One that was overtaken on the way says nothing.
local given = numbers_in(ARGV[16])
if not settle(account, gateway, boot, tonumber(ARGV[3]), numbers(4, 12), given) then return 1 end

local named = {}
local kept = tonumber(ARGV[20])
for at = 21, 20 + kept do named[ARGV[at]] = true end
for at = 21 + kept, #ARGV, 8 do
  named[ARGV[at]] = true
  local entry = {now + ARGV[18], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]),
    tonumber(ARGV[at + 3]), numbers(at + 4, 4), boot, gateway, 1}
  redis.call('HSET', KEYS[2], ARGV[at], cmsgpack.pack(entry))
end

local horizon = tonumber(ARGV[19])
local flat = redis.call('HGETALL', KEYS[2])
for at = 1, #flat, 2 do
  local entry = cmsgpack.unpack(flat[at + 1])
  if entry[7] == gateway and not named[flat[at]] then
    local number = tonumber(string.match(flat[at], '(%d+)$') or '')
    -- A message that is shared by an id ends with its group or its time.
    if entry[8] == 1 and (entry[6] < boot or (number and number < horizon)) then
      redis.call('HDEL', KEYS[2], flat[at])
    end
  end
end
recount(account, now)
save(account, now)
return 1
