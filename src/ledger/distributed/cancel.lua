-- A request was given up while it was on its way here, or its answer was. What it was granted is free;
-- if it comes only now, it is granted nothing.
-- KEYS the group of its message id, if it has one, then its conversations and further turns, if those count it
-- ARGV 1 gateway  2 boot  3 name
-- Answers {1}, or {1, name} when it has to pay the message of its group.
local now, account = clock(), read_account()
local gateway, boot, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not (account.o and account.o[5]) then recount(account, now) end
local group, talks
for at = 3, #KEYS do
  if string.find(KEYS[at], ':message:', 1, true) then
    group = KEYS[at]
  elseif not talks then
    talks = KEYS[at]
  end
end
local owes = group and leave(account, now, group, name, 3, talks)
local entry = read_entry(name)
if not entry then
  bury(account, now, name, boot, gateway)
  entry = read_entry(name)
  -- A list of what is open may have left it out; asked again, this says the same.
  if owes then entry[9] = 1 end
end
-- It may come once more when it is over.
entry[11] = 1
write_entry(name, entry)
if not owes then close(account, now, {name}, {[name] = talks}) end
save(account, now)
if owes then return {1, name} end
return {1}
