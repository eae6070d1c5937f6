-- Cancels a request whose reservation or its reply was still on the way. What it was granted is released;
-- if the reservation arrives later, it is granted nothing.
-- KEYS[3..] the group of its message id, if it has one, then its conversations and further turns, if those count it
-- ARGV 1 gateway  2 boot  3 name
-- Answers {1}, or {1, name} when the request has to pay the message of its group.
local now, account = clock(), read_account()
local gateway, boot, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not (account.o and account.o[5]) then recount(account, now) end
local group, conversations
for at = 3, #KEYS do
  if string.find(KEYS[at], ':message:', 1, true) then
    group = KEYS[at]
  elseif not conversations then
    conversations = KEYS[at]
  end
end
local must_pay = group and leave(account, now, group, name, 3, conversations)
local entry = read_entry(name)
if not entry then
  keep_ended_name(account, now, name, boot, gateway)
  entry = read_entry(name)
  -- A full state of the gateway may have left it out. The mark makes a repeated call answer the same.
  if must_pay then entry[9] = 1 end
end
-- The reservation may still arrive after this.
entry[11] = 1
write_entry(name, entry)
if not must_pay then close(account, now, {name}, {[name] = conversations}) end
save(account, now)
if must_pay then return {1, name} end
return {1}
