-- Records what a gateway has settled so far, and which of its requests ended.
-- ARGV 1 gateway  2 numbers: boot, sequence, windows  3 grants of operators, as a text or empty
--      4 whether it has reported this licence before (1)  5.. requests that ended: see `finish`
-- Answers {1, names of requests that have to pay a shared message}, or {2} when an earlier report of this
-- gateway is lost.
local now, account = clock(), read_account()
if is_lost(account, ARGV[1], ARGV[4] == '1') then return {2} end
settle(account, ARGV[1], ARGV[2], parse_numbers(ARGV[3]))
if not (account.o and account.o[5]) then recount(account, now) end
local must_pay_names = finish(account, now, 5)
save(account, now)
return {1, unpack(must_pay_names)}
