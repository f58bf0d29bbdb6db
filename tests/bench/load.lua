-- Requests for wrk: random paths, and random ranges if they are wanted.
-- Arguments: file of paths, file of header lines, size, shortest range (0: whole objects), longest range, seed.
local heads, fields, wholes = {}, "", {}
local size, shortest, longest = 0, 0, 0
local random = math.random

function init(args)
   for line in io.lines(args[2]) do fields = fields .. line .. "\r\n" end
   size, shortest, longest = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
   math.randomseed(tonumber(args[6]))
   for path in io.lines(args[1]) do
      local head = "GET " .. path .. " HTTP/1.1\r\n" .. fields
      heads[#heads + 1] = head
      wholes[#wholes + 1] = head .. "\r\n"
   end
end

function request()
   if shortest == 0 then return wholes[random(#wholes)] end
   local length = random(shortest, longest)
   local first = random(0, size - length)
   return heads[random(#heads)] .. "Range: bytes=" .. first .. "-" .. first + length - 1 .. "\r\n\r\n"
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'TOLD {"requests": %d, "bytes": %d, "microseconds": %d, "errors": %d, "median": %g, "p99": %g}\n',
      summary.requests, summary.bytes, summary.duration,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
