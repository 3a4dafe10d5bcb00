-- The guest's agent as an ordinary process of this machine, and stand-ins for it that break its protocol.
local build = require "spec.support.build"
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local agent = {}

local methods = {}
local metatable = { __index = methods, __close = function(self) self:close() end }

local GUEST = os.getenv "SUPERMACHINE_GUEST" or build.dir .. "/supermachine-guest"
local START_MS <const> = 20000

-- Runs `command` with the socket's path as its last word, in the background, until it takes connections.
local function start(command)
	local self = setmetatable({ folder = scratch.folder() }, metatable)
	self.path = self.folder .. "/agent"
	local log = scratch.quote(self.folder .. "/log")
	self.pid = scratch.run(("%s %s >%s 2>&1 </dev/null & echo $!"):format(command, scratch.quote(self.path), log))
	local deadline = core.now_ms() + START_MS
	repeat
		local stream = core.stream_over(self.path)
		if stream then
			stream:close()
			return self
		end
		core.poll({}, 5)
	until core.now_ms() > deadline
	local words = self:log()
	self:close()
	error("the agent did not start: " .. words, 2)
end

function agent.start() return start(scratch.quote(GUEST) .. " --serve") end

-- Answers each connection with some bytes (see answer_with), whatever it says, and closes it.
function agent.start_fake()
	local file = os.tmpname()
	local self = start("python3 spec/support/fake_agent.py " .. file)
	self.answer = file
	return self
end

function methods:answer_with(bytes) scratch.write(self.answer, bytes) end

-- What supermachine.process takes in place of a machine.
function methods:process(request) return core.process_over(self.path, request) end

function methods:stream() return assert(core.stream_over(self.path)) end

function methods:kill()
	if self.pid then os.execute("kill -9 " .. self.pid .. " 2>/dev/null") end
	self.pid = nil
end

function methods:log() return scratch.read(self.folder .. "/log") end

-- How many children it has: the processes of requests.
function methods:children()
	local file <close> = assert(io.open(("/proc/%s/task/%s/children"):format(self.pid, self.pid)))
	local _, count = file:read("a"):gsub("%d+", "")
	return count
end

function methods:descriptors()
	return tonumber(scratch.run(("ls /proc/%s/fd | wc -l"):format(self.pid)))
end

function methods:close()
	self:kill()
	if self.folder then scratch.remove(self.folder) end
	if self.answer then os.remove(self.answer) end
	self.folder, self.answer = nil, nil
end

-- One frame's bytes.
function agent.frame(type, payload)
	payload = payload or ""
	return string.pack("<I4I2I2", #payload, type, 0) .. payload
end

-- The frames that open a request.
function agent.open(kind, body, version)
	local bytes = agent.frame(1, string.pack("<I2I2I4", version or 2, kind, #body))
	return body == "" and bytes or bytes .. agent.frame(2, body)
end

-- Everything that comes until the end, as { {type, payload}, .. }.
function agent.frames(stream)
	local bytes = ""
	while true do
		local piece, message, code = stream:read()
		if piece == "" then break end
		if not piece and code == "EAGAIN" then
			assert(core.poll({ { stream:fd(), "r" } }, START_MS)[1], "no answer")
		elseif not piece then
			error(message)
		end
		bytes = bytes .. (piece or "")
	end
	local frames, at = {}, 1
	while at <= #bytes do
		local length, type = string.unpack("<I4I2I2", bytes, at)
		frames[#frames + 1] = { type, bytes:sub(at + 8, at + 7 + length) }
		at = at + 8 + length
	end
	return frames
end

return agent
