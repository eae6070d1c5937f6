-- What a gateway has settled so far, and which of its requests ended.
-- ARGV 1 gateway  2 boot  3 sequence  4-15 windows  16 what operators gave, as a text or empty
--      17.. names of requests that ended
local account = read_account()
settle(account, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), numbers(4, 12), numbers_in(ARGV[16]))
for at = 17, #ARGV do close(account, ARGV[at]) end
if account.o then write('o', account.o) end
keep()
return 1
