-- The usage of a licence and the grants of operators.
-- ARGV 1 period of messages  2 period of tokens  3.. start and end of each window
-- Answers {0, now, messages settled, open, extra, forgiven, tokens settled, extra, forgiven, requests
-- open, whether usage of a gateway is presumed}, or {1, now} when the windows do not fit the store's
-- time.
local now = clock()
local starts = {}
for period = 1, 4 do
  local start, stop = tonumber(ARGV[1 + 2 * period]), tonumber(ARGV[2 + 2 * period])
  if now < start or now >= stop then return {1, now} end
  starts[period] = start
end
local account = read_account()
if account.o then
  recount_if_due(account, now)
  if counted then save(account, now) end
end
local period = tonumber(ARGV[1])
local messages, _, extra, _, forgiven = usage(account, period, starts[period])
local open = open_usage(account, period, starts[period])
local token_period = tonumber(ARGV[2])
local _, tokens, _, extra_tokens, _, forgiven_tokens = usage(account, token_period, starts[token_period])
local places = account.o and account.o[1] or 0
return {0, now, messages, open, extra, forgiven, tokens, extra_tokens, forgiven_tokens, places,
  has_presumed(account)}
