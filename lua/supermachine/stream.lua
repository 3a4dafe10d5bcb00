--- Byte streams: connections to and from a guest.  Blocking in the manner of scheduler.wait.
local core = require "supermachine.core"
local queue = require "supermachine.queue"
local scheduler = require "supermachine.scheduler"

local stream = {}

local methods = {}
local metatable = { __index = methods, __name = "supermachine.stream" }

local CHUNK <const> = 65536

local function deadline_of(options)
	return options and options.timeout_ms and core.now_ms() + options.timeout_ms
end

local function left(deadline) return deadline and math.max(deadline - core.now_ms(), 0) end

local function open_handle(self)
	return self.handle or error("supermachine.stream is closed", 3)
end

-- More bytes into the buffer.  true, false at the end, or nil, message, code.
local function fill(self, deadline)
	while true do
		local handle = open_handle(self)
		if self.ended then return false end
		local piece, message, code = handle:read(CHUNK)
		if piece == "" then
			self.ended = true
			return false
		elseif piece then
			self.input:append(piece)
			return true
		elseif code ~= "EAGAIN" then
			return nil, message, code
		end
		local fine, why, name = scheduler.await(handle:fd(), "r", left(deadline))
		if not self.handle then return nil, "the stream was closed", "EBADF" end
		if not fine then return nil, why, name end
	end
end

--- Read: with no format or a number, what is there next (at most that many bytes); "l" or "L", a line without or with
-- its end; "a", everything up to the end.  nil at the end of the stream ("a": ""); nil, message, code on failure.
-- Options: timeout_ms.
function methods:read(format, options)
	open_handle(self)
	queue.check_format(format)
	local deadline = deadline_of(options)
	while true do
		local piece = self.input:take(format, self.ended)
		if piece or self.ended then return piece end
		local more, message, code = fill(self, deadline)
		if more == nil then return nil, message, code end
	end
end

--- Iterate over lines ("l" or "L"); a failure raises.
function methods:lines(format)
	return function()
		local line, message = self:read(format or "l")
		if not line and message then error(message, 2) end
		return line
	end
end

--- Write all of it.  true, or nil, message, code.  Options: timeout_ms.
function methods:write(bytes, options)
	local deadline = deadline_of(options)
	local from = 1
	while from <= #bytes do
		local handle = open_handle(self)
		local count, message, code = handle:write(bytes, from)
		if count then
			from = from + count
		elseif code ~= "EAGAIN" then
			return nil, message, code
		else
			local fine, why, name = scheduler.await(handle:fd(), "w", left(deadline))
			if not self.handle then return nil, "the stream was closed", "EBADF" end
			if not fine then return nil, why, name end
		end
	end
	return true
end

--- No more will be written: the other side reads the end.  Its own bytes can still be read.
function methods:shutdown() return open_handle(self):shutdown "w" end

function methods:fd() return open_handle(self):fd() end

function methods:close()
	local handle = self.handle
	if not handle then return end
	self.handle = nil
	scheduler.wake(handle:fd())
	handle:close()
end

metatable.__close = methods.close
metatable.__gc = function(self) if self.handle then self.handle:close() end end
function metatable:__tostring()
	return ("supermachine.stream (%s)"):format(self.handle and "open" or "closed")
end

--- A stream over a core stream; a failure triple passes through.
function stream.wrap(handle, message, code)
	if not handle then return nil, message, code end
	return setmetatable({ handle = handle, input = queue.new(), ended = false }, metatable)
end

return stream
