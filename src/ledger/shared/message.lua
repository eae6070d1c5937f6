-- Decides who is charged the message that requests of one id share: the first of them that is
-- charged; if all give it back, it is free.
-- KEYS[3] the group   ARGV 1 whether this request is charged (1) or gives back (0)
-- Answers 1 when this request is to be charged the message, else 0.
local packed = redis.call('GET', KEYS[3])
local charge = tonumber(ARGV[1])
-- Forgotten: then it stands alone.
if not packed then return charge end

local account = {}
local known = redis.call('HGET', KEYS[1], 'o')
account.o = known and cmsgpack.unpack(known)
local group = cmsgpack.unpack(packed)
group[3] = math.max(0, group[3] - 1)
local pays = 0
if charge == 1 and group[4] == 0 then
  group[4], pays = 1, 1
end
if group[5] ~= '' and (pays == 1 or group[3] == 0) then
  close(account, {group[5]})
  group[5] = ''
  save(account, clock())
end
redis.call('SET', KEYS[3], cmsgpack.pack(group), 'KEEPTTL')
return pays
