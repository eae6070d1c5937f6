-- A request was given up while it was on its way here, or its answer was. What it was granted is free;
-- if it comes only now, it is granted nothing.
-- KEYS[3] the group of its message id, if it has one   ARGV 1 gateway  2 boot  3 name
-- Answers {1}, or {1, name} when it has to pay the message of its group.
local DEAD = 70000 -- longer than a connection that fails keeps what was written to it

-- An entry without a place, until it is told or its time is over.
local function stay(account, now, owes)
  local entry = {now + DEAD, 0, 0, 0, {0, 0, 0, 0}, tonumber(ARGV[2]), ARGV[1], 0, owes, 0}
  write_entry(ARGV[3], entry)
  count_open(account.o, entry)
end

local now, account = clock(), read_account()
if not (account.o and account.o[5]) then recount(account, now) end
if KEYS[3] and leave(account, KEYS[3], ARGV[3], 3) then
  -- A list of what is open may have left it out; asked again, this says the same.
  if not read_entry(ARGV[3]) then stay(account, now, 1) end
  save(account, now)
  return {1, ARGV[3]}
end
close(account, {ARGV[3]})
stay(account, now, 0)
save(account, now)
return {1}
