-- What a seller would write by hand in nginx: the licence by its hash, counters that all workers share,
-- the seller's key in place of the licence, and the usage read off the answer. No shop is asked, nothing
-- survives a restart, streams and errors are nobody's: the least that could be compared.
local ffi = require "ffi"
ffi.cdef [[unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);]]
local digest = ffi.new "unsigned char[32]"
local used = ngx.shared.used

local function hash(key)
  ffi.C.SHA256(key, #key, digest)
  return ffi.string(digest, 32)
end

local gate = { plans = {} }

function gate.know(key, plan)
  gate.plans[hash(key)] = plan
end

local function refuse(status, code)
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.say('{"error":{"message":"', code, '","type":"invalid_request_error","code":"', code, '"}}')
  return ngx.exit(status)
end

function gate.enter(secret)
  local key = (ngx.var.http_authorization or ""):match "^Bearer (.+)$"
  if not key then return refuse(401, "license_missing") end
  local id = hash(key)
  local plan = gate.plans[id]
  if not plan then return refuse(403, "license_invalid") end
  local minute = math.floor(ngx.time() / 60)
  if used:incr(id .. ":rate:" .. minute, 1, 0, 120) > plan.rate then
    return refuse(429, "rate_limited")
  end
  if (used:get(id .. ":tokens") or 0) >= plan.tokens then return refuse(402, "quota_exceeded") end
  if used:incr(id .. ":messages", 1, 0) > plan.messages then return refuse(402, "quota_exceeded") end
  ngx.ctx.id = id
  ngx.req.set_header("Authorization", "Bearer " .. secret)
end

function gate.read()
  local body = (ngx.ctx.body or "") .. ngx.arg[1]
  ngx.ctx.body = body
  if ngx.arg[2] and ngx.ctx.id then
    local total = tonumber(body:match '"total_tokens":(%d+)')
    if total then used:incr(ngx.ctx.id .. ":tokens", total, 0) end
  end
end

return gate
