--- What objects have in common that bytes flow through, streams and processes: a core handle that never blocks, as
-- `self.handle` until it is closed, and waits in the manner of scheduler.wait.
local core = require "supermachine.core"
local scheduler = require "supermachine.scheduler"

local flow = {}

--- When `timeout_ms` (nil: never) is over.
function flow.deadline(timeout_ms) return timeout_ms and core.now_ms() + timeout_ms end

--- The handle.  A closed object is misuse and raises, at the caller of the method that asks.
function flow.handle(self)
	return self.handle or error(getmetatable(self).__name .. " is closed", 3)
end

--- Wait until the handle is ready.  true, or nil, message, code when time is up or it was closed meanwhile.
function flow.await(self, events, deadline)
	local left = deadline and math.max(deadline - core.now_ms(), 0)
	local fine, message, code = scheduler.await(self.handle:fd(), events, left)
	if not self.handle then return nil, ("the %s was closed"):format(getmetatable(self).__name:match "%w+$"), "EBADF" end
	if not fine then return nil, message, code end
	return true
end

--- Write all of it.  `wait` is called with self and the deadline when the handle takes nothing now, and gives true, or
-- what fails the write.  true, or nil, message, code.
function flow.write(self, bytes, deadline, wait)
	local from = 1
	while from <= #bytes do
		local count, message, code = flow.handle(self):write(bytes, from)
		if count then
			from = from + count
		elseif code ~= "EAGAIN" then
			return nil, message, code
		else
			local fine, why, name = wait(self, deadline)
			if not fine then return nil, why, name end
		end
	end
	return true
end

-- Iterate over lines ("l" or "L"); a failure raises.
local function lines(self, format)
	return function()
		local line, message = self:read(format or "l")
		if not line and message then error(message, 2) end
		return line
	end
end

-- Whoever waits for it gets to know.
local function close(self)
	local handle = self.handle
	if not handle then return end
	self.handle = nil
	scheduler.wake(handle:fd())
	handle:close()
end

--- A class of such objects, with the methods that are the same in all: methods, metatable.
function flow.class(name)
	local methods = { lines = lines, close = close }
	local metatable = { __index = methods, __name = name, __close = close }
	function metatable.__gc(self) if self.handle then self.handle:close() end end
	return methods, metatable
end

return flow
