-- What a gateway has settled so far, and which of its requests ended.
-- ARGV 1 gateway  2 boot  3 sequence  4-15 windows  16 what operators gave, as a text or empty
--      17 whether it has spoken of this licence before (1)  18.. names of requests that ended
-- Answers 1, or 2 when what it said before is gone.
local account = read_account()
if is_lost(account, ARGV[1], ARGV[17]) then return 2 end
settle(account, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), numbers(4, 12), numbers_in(ARGV[16]))
for first = 18, #ARGV, 1000 do -- Lua's stack holds some thousand
  close(account, {unpack(ARGV, first, math.min(first + 999, #ARGV))})
end
if not account.o then recount(account, clock()) end
save(account, clock())
return 1
