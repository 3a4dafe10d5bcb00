--- Byte streams: connections to and from a guest.  Blocking in the manner of scheduler.wait.
local flow = require "supermachine.flow"
local queue = require "supermachine.queue"

local stream = {}

local methods, metatable = flow.class "supermachine.stream"

local CHUNK <const> = 65536

local function deadline_of(options) return options and flow.deadline(options.timeout_ms) end

-- More bytes into the buffer.  true, false at the end, or nil, message, code.
local function fill(self, deadline)
	while true do
		if self.ended then return false end
		local piece, message, code = flow.handle(self):read(CHUNK)
		if piece == "" then
			self.ended = true
			return false
		elseif piece then
			self.input:append(piece)
			return true
		elseif code ~= "EAGAIN" then
			return nil, message, code
		end
		local fine, why, name = flow.await(self, "r", deadline)
		if not fine then return nil, why, name end
	end
end

--- Read: with no format or a number, what is there next (at most that many bytes); "l" or "L", a line without or with
-- its end; "a", everything up to the end.  nil at the end of the stream ("a": ""); nil, message, code on failure.
-- Options: timeout_ms.
function methods:read(format, options)
	flow.handle(self)
	queue.check_format(format)
	local deadline = deadline_of(options)
	while true do
		local piece = self.input:take(format, self.ended)
		if piece or self.ended then return piece end
		local more, message, code = fill(self, deadline)
		if more == nil then return nil, message, code end
	end
end

local function await_room(self, deadline) return flow.await(self, "w", deadline) end

--- Write all of it.  true, or nil, message, code.  Options: timeout_ms.
function methods:write(bytes, options) return flow.write(self, bytes, deadline_of(options), await_room) end

--- No more will be written: the other side reads the end.  Its own bytes can still be read.
function methods:shutdown() return flow.handle(self):shutdown "w" end

function methods:fd() return flow.handle(self):fd() end

function metatable:__tostring()
	return ("supermachine.stream (%s)"):format(self.handle and "open" or "closed")
end

--- A stream over a core stream; a failure triple passes through.
function stream.wrap(handle, message, code)
	if not handle then return nil, message, code end
	return setmetatable({ handle = handle, input = queue.new(), ended = false }, metatable)
end

return stream
