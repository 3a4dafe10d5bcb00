--- Processes in a guest: run to the end (exec), or talk to while they run (spawn).
--
-- Both take anything with a method process(request), such as a machine, which gives a core process over a new
-- connection to the guest's agent.
local flow = require "supermachine.flow"
local options = require "supermachine.options"
local queue = require "supermachine.queue"
local scheduler = require "supermachine.scheduler"

local process = {}

-- close() kills what still runs of it.
local methods, metatable = flow.class "supermachine.process"
local open_handle = flow.handle

local OUTPUT_MAX <const> = 64 << 20

local signals = {
	HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10, SEGV = 11,
	USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15, CHLD = 17, CONT = 18, STOP = 19, TSTP = 20, TTIN = 21, TTOU = 22,
	WINCH = 28, PWR = 30, RTMIN = 34, RTMAX = 64,
}

-- 15, "TERM", "SIGTERM", "15", "SIGRTMIN+3", as images write them; nil: none of these.
local function signal_number(signal)
	if type(signal) ~= "string" then return math.tointeger(signal) end
	local name = signal:upper():gsub("^SIG", "")
	local base, offset = name:match "^(RTM%u%u)([+-]%d%d?)$"
	if base then return signals[base] and signals[base] + tonumber(offset) end
	return signals[name] or tonumber(name:match "^%d%d?$")
end

local request_options = {
	env = "table", cwd = "string", user = "string", tty = "boolean", rows = "integer", columns = "integer",
	merge_stderr = "boolean", limits = "table", max_output_bytes = "integer", timeout_ms = "integer",
}
local request_keys = { "cwd", "user", "tty", "rows", "columns", "merge_stderr", "limits" }

local function with(types, extra)
	local all = {}
	for key, value in pairs(types) do all[key] = value end
	for key, value in pairs(extra) do all[key] = value end
	return all
end
local exec_options = with(request_options, { stdin = "string" })
local spawn_options = with(request_options, { stdin = "boolean", keep = "boolean" })

-- { NAME = value } and { "NAME=value", .. }, in one table or the other.
local function add_env(into, env)
	for key, value in pairs(env or {}) do
		if math.type(key) == "integer" and type(value) == "string" then
			local name, text = value:match "^([^=]+)=(.*)$"
			if not name then error(("env: '%s' is not NAME=value"):format(value), 0) end
			into[name] = text
		else
			into[key] = value
		end
	end
end

--- A copy of an env option, by name; raises for what is none.
function process.env(env, level)
	level = (level or 1) + 2
	local copy = {}
	add_env(copy, env)
	for name, value in pairs(copy) do
		if type(name) ~= "string" or name == "" or name:find "[=\0]" then
			error("option 'env': names are strings without '='", level)
		end
		if type(value) ~= "string" or value:find "\0" then
			error(("option 'env': %s: string expected, got %s"):format(name, type(value)), level)
		end
	end
	return copy
end

-- `defaults` is what an image says: { env = list, workdir = string, user = string, stop_signal = string }, and what the
-- machine's user adds: added_env.
local function request_of(argv, given, defaults)
	defaults = defaults or {}
	local request = options.pick(given, request_keys)
	request.argv = argv
	request.env = {}
	add_env(request.env, defaults.env)
	add_env(request.env, defaults.added_env)
	add_env(request.env, given.env)
	request.cwd = request.cwd or defaults.workdir
	request.user = request.user or defaults.user
	if request.cwd == "" then request.cwd = nil end
	if request.user == "" then request.user = nil end
	return request
end

--- What a machine's agent is to run by itself: a request without options.
function process.request(argv, defaults) return request_of(argv, {}, defaults) end

-- ---- one step ---------------------------------------------------------------------------------------------------

-- What is over the maximum is dropped: the process goes on, and the result says `truncated`.
local function keep(self, output, piece)
	if piece and not output:append(piece) then self.truncated = true end
end

local function ended(self) return self.exit or self.failure end

local function step(self)
	local handle = self.handle
	local news, message, code = handle:step()
	if news then
		keep(self, self.stdout, news.stdout)
		keep(self, self.stderr, news.stderr)
		self.id = self.id or news.started
		self.exit = news.exit
	else
		self.failure = { message, code }
	end
	-- Another task may be waiting for what this step brought.
	scheduler.wake(handle:fd())
end

-- Wait for news and take it.  true (also when it ends), or nil, message, code when time is up or it was closed.
local function pump(self, deadline)
	local fine, message, code = flow.await(self, self.handle:events(), deadline)
	if not fine then return nil, message, code end
	if not ended(self) then step(self) end
	return true
end

-- ---- the handle -------------------------------------------------------------------------------------------------

local read_options = { stderr = "boolean", timeout_ms = "integer" }
local wait_options = { timeout_ms = "integer" }

--- Read standard output (stderr = true: standard error).  With no format or a number, what is there next (at most
-- that many bytes); "l" or "L", a line without or with its end; "a", everything up to the end.  nil at the end
-- ("a": ""); nil, message, code on failure.  Options: stderr, timeout_ms.
-- A process that nobody reads from is held back only while nobody waits for anything else of it: see max_output_bytes.
function methods:read(format, given)
	open_handle(self)
	local checked = options.check(read_options, given)
	queue.check_format(format)
	local output = checked.stderr and self.stderr or self.stdout
	local deadline = flow.deadline(checked.timeout_ms)
	while true do
		local piece = output:take(format, self.exit or (self.failure and format ~= "a"))
		if piece then return piece end
		if self.failure then return nil, table.unpack(self.failure) end
		if self.exit then return nil end
		local fine, message, code = pump(self, deadline)
		if not fine then return nil, message, code end
	end
end

--- Write all of it to standard input, as fast as the process takes it.  true, or nil, message, code ("EPIPE": it
-- takes no more).  Options: timeout_ms.
function methods:write(bytes, given)
	open_handle(self)
	local deadline = flow.deadline(options.check(wait_options, given).timeout_ms)
	return flow.write(self, bytes, deadline, pump)
end

--- The process reads the end of its input.
function methods:close_stdin() return open_handle(self):close_stdin() end

--- Send a signal, by number or by name ("TERM"), to its process group; by default the one that the image wants its
-- processes stopped with ("EINVAL": it names none that there is), or TERM.
function methods:signal(signal)
	local handle, wanted = open_handle(self), self.stop_signal
	local number = signal_number(signal or wanted)
	if number and number >= 1 and number <= 64 then return handle:signal(number) end
	if signal ~= nil then error(("unknown signal '%s'"):format(tostring(signal)), 2) end
	return nil, ("the image's stop signal '%s' is none"):format(wanted), "EINVAL"
end

--- The terminal has another size.
function methods:resize(rows, columns) return open_handle(self):resize(rows, columns) end

--- Wait for the end: { code = n } or { signal = n }, with duration_ms, user_ms, system_ms, max_rss_bytes, timed_out,
-- truncated.  nil, message, code when the guest is lost or timeout_ms is over (the process goes on then).  What it
-- wrote can still be read.
function methods:wait(given)
	open_handle(self)
	local deadline = flow.deadline(options.check(wait_options, given).timeout_ms)
	while not ended(self) do
		local fine, message, code = pump(self, deadline)
		if not fine then return nil, message, code end
	end
	if self.failure then return nil, table.unpack(self.failure) end
	local result = {}
	for key, value in pairs(self.exit) do result[key] = value end
	result.truncated = self.truncated
	return result
end

--- Its number in the guest.
function methods:pid() return self.id end

--- For other event loops: wait until fd() is ready for events(), then step(); then reading takes what came.
function methods:fd() return open_handle(self):fd() end
function methods:events() return open_handle(self):events() end
function methods:step()
	open_handle(self)
	if not ended(self) then step(self) end
	return not ended(self)
end

function metatable:__tostring()
	local state = not self.handle and "closed" or self.failure and "failed" or self.exit and "ended" or
		self.id and ("pid %d"):format(self.id) or "starting"
	return ("supermachine.process (%s)"):format(state)
end

-- ---- the two ways in --------------------------------------------------------------------------------------------

local function open(source, request, max, stop_signal)
	local handle, message, code = source:process(request)
	if not handle then return nil, message, code end
	max = max or OUTPUT_MAX
	local self = {
		handle = handle, stdout = queue.new(max), stderr = queue.new(max), truncated = false, stop_signal = stop_signal,
	}
	return setmetatable(self, metatable)
end

--- Start a process and return its handle once it runs; nil, message, code ("ENOENT": no such program) when it cannot.
-- Options: env (a table by name), cwd = "/", user = "root" ("name", "1000:1000", ..), tty, rows, columns, stdin = true
-- (false: it reads the end of file at once), merge_stderr, limits (memory_bytes, address_space_bytes, core_bytes,
-- cpu_s, data_bytes, file_bytes, locked_bytes, open_files, processes, stack_bytes: a number, or {soft, hard}),
-- timeout_ms (the guest kills it then), keep (it goes on when this handle is closed, and in machines restored from a
-- snapshot; what it writes then is dropped), max_output_bytes = 64 MiB (of each of its outputs that is kept unread;
-- what is over it is dropped, and the result says truncated).
function process.spawn(source, argv, given, defaults)
	options.argv(argv)
	local checked = options.check(spawn_options, given)
	local request = request_of(argv, checked, defaults)
	request.stdin, request.keep = checked.stdin ~= false, checked.keep
	request.timeout_ms = checked.timeout_ms
	local stop_signal = defaults and defaults.stop_signal or ""
	local self, message, code = open(source, request, checked.max_output_bytes,
		stop_signal ~= "" and stop_signal or "TERM")
	if not self then return nil, message, code end
	while not self.id and not self.failure do
		local fine, why, name = pump(self)
		if not fine then return nil, why, name end
	end
	if not self.failure then return self end
	self:close()
	return nil, table.unpack(self.failure)
end

-- Standard input goes out as the window allows; what a process does not want is no failure.
local function feed(self, input, from)
	local count, _, code = self.handle:write(input, from)
	if count then from = from + count end
	if not count and code ~= "EAGAIN" then return nil end
	if from <= #input then return from end
	self.handle:close_stdin()
	return nil
end

--- Run a process to its end.  Returns { code = n } or { signal = n }, stdout, stderr, duration_ms, user_ms, system_ms,
-- max_rss_bytes, truncated; an exit code other than 0 is a result.  nil, message, code, partial when it could not be
-- started, when the guest is lost ("ECONNRESET"), or when timeout_ms is over ("ETIMEDOUT": it is killed); partial has
-- the stdout and stderr so far.  Options as for spawn, but stdin is a string.
function process.exec(source, argv, given, defaults)
	options.argv(argv)
	local checked = options.check(exec_options, given)
	local request = request_of(argv, checked, defaults)
	request.stdin = checked.stdin ~= nil
	local deadline = flow.deadline(checked.timeout_ms)
	local self <close>, message, code = open(source, request, checked.max_output_bytes)
	if not self then return nil, message, code end
	local from = checked.stdin and 1
	while not ended(self) do
		if from then from = feed(self, checked.stdin, from) end
		local fine, why, name = pump(self, deadline)
		if not fine then
			self.failure = name == "ETIMEDOUT" and
				{ ("%s: still running after %d ms"):format(argv[1], checked.timeout_ms), name } or { why, name }
		end
	end
	local out, err = self.stdout:take("a", true), self.stderr:take("a", true)
	if self.failure then
		return nil, self.failure[1], self.failure[2], { stdout = out, stderr = err, truncated = self.truncated }
	end
	local result = self.exit
	result.stdout, result.stderr, result.truncated = out, err, self.truncated
	return result
end

return process
