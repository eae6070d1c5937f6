-- What a gateway has settled so far, and which of its requests ended.
-- ARGV 1 gateway  2 boot  3 sequence  4-15 windows  16 what operators gave, as a text or empty
--      17 whether it has spoken of this licence before (1)  18.. requests that ended: see `finish`
-- Answers {1, names of requests that have to pay a shared message}, or {2} when what it said before
-- is gone.
local now, account = clock(), read_account()
if is_lost(account, ARGV[1], ARGV[17]) then return {2} end
settle(account, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), numbers(4, 12), numbers_in(ARGV[16]))
if not (account.o and account.o[5]) then recount(account, now) end
local owing = finish(account, now, 18)
save(account, now)
return {1, unpack(owing)}
