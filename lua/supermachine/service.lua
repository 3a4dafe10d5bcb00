--- A process that a bake starts and leaves running, and how it is known to be ready.
local core = require "supermachine.core"
local options = require "supermachine.options"
local scheduler = require "supermachine.scheduler"

local service = {}

--- Of image:bake.
service.options = {
	service = "list", ready_port = "integer", ready_console = "string", ready_stdout = "string", ready_ms = "integer",
}
service.triggers = { "ready_port", "ready_console", "ready_stdout", "ready_ms" }

local PIECES_MAX <const> = 64
local TAIL_BYTES <const> = 400 -- of its last output, in messages
-- What has no event is looked at again and again, less and less often.
local LOOK_MS <const>, LOOK_MAX_MS <const> = 5, 100

--- Raises for options that make no sense together; returns the trigger's name, nil for a bake without.
function service.check(checked, level)
	level = (level or 1) + 1
	local trigger
	for _, name in ipairs(service.triggers) do
		if checked[name] and trigger then error(("options '%s' and '%s': one says when"):format(trigger, name), level) end
		if checked[name] then trigger = name end
	end
	if checked.service then
		options.argv(checked.service, level)
		if not trigger then
			error("option 'service': one of ready_port, ready_console, ready_stdout, ready_ms is needed", level)
		end
	end
	local port, ms = checked.ready_port, checked.ready_ms
	if port and (port < 1 or port > 65535) then error("option 'ready_port': 1 to 65535", level) end
	if ms and ms < 0 then error("option 'ready_ms' is negative", level) end
	for _, name in ipairs { "ready_console", "ready_stdout" } do
		if checked[name] == "" then error(("option '%s': empty"):format(name), level) end
	end
	return trigger
end

--- Whether /proc/net/tcp's text has a socket that listens on the port.
function service.listens(text, port)
	for address, state in text:gmatch "\n%s*%d+: %x+:(%x+) %x+:%x+ (%x+)" do
		if state == "0A" and tonumber(address, 16) == port then return true end
	end
	return false
end

-- What the trigger looks at, each a function of the machine and what the process has just written: true; false, or nil,
-- message, code.  The port is looked up and not connected to: the service sees nobody.
local looks = {}
function looks.ready_port(port)
	return function(machine)
		for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
			local text, message, code = machine:read_file(path, { timeout_ms = 10000 })
			if text and service.listens(text, port) then return true end
			if not text and code ~= "ENOENT" then return nil, message, code end
		end
		return false
	end
end
-- The text may come in pieces.
local function finder(wanted)
	local seen = ""
	return function(piece)
		seen = seen .. piece
		if seen:find(wanted, 1, true) then return true end
		seen = seen:sub(-#wanted)
		return false
	end
end
function looks.ready_stdout(wanted)
	local find = finder(wanted)
	return function(_, out) return find(out) end
end
function looks.ready_console(wanted)
	local find, cursor = finder(wanted), 0
	return function(machine)
		local text, position, code = machine:console_from(cursor)
		if not text then return nil, position, code end
		cursor = position
		return find(text)
	end
end
function looks.ready_ms(milliseconds)
	local due = core.now_ms() + milliseconds
	return function() return core.now_ms() >= due end
end

-- What there is to be read now, but for one that never stops writing.
local function take(process, stderr)
	local all = {}
	for i = 1, PIECES_MAX do
		all[i] = process:read(nil, { stderr = stderr, timeout_ms = 0 })
		if not all[i] then break end
	end
	return table.concat(all)
end

local function how_it_ended(result)
	return result.signal and "signal " .. result.signal or "code " .. tostring(result.code)
end

--- The image's own command line, with `words` in place of its cmd where there are any, as the OCI image specification
-- has it.
function service.command(image, words)
	local process = image:process()
	local argv = table.move(process.entrypoint, 1, #process.entrypoint, 1, {})
	local tail = words and #words > 0 and words or process.cmd
	return table.move(tail, 1, #tail, #argv + 1, argv)
end

--- Why a bake fails whose service is gone.
function service.ended(result) return "the service ended with " .. how_it_ended(result) .. " before the snapshot" end

--- Start argv in the machine and wait until it is ready by `trigger`, for timeout_ms at most.  Returns its handle (the
-- process outlives it), or nil, message, code: "ECHILD" when it ends before, "ETIMEDOUT"; the message has its last
-- output.
-- The machine: spawn, read_file, console_from, as supermachine.vm has them.
function service.start(machine, argv, trigger, wanted, timeout_ms)
	local process, message, code = machine:spawn(argv, { stdin = false, keep = true })
	if not process then return nil, ("service %s: %s"):format(argv[1], message), code end
	local deadline, look, pause, tail = core.now_ms() + timeout_ms, looks[trigger](wanted), LOOK_MS, ""
	local function failed(text, name)
		process:close()
		return nil, ("service %s: %s; its last output: %s"):format(argv[1], text, tail == "" and "(nothing)" or tail), name
	end
	local function news()
		local out, errors = take(process), take(process, true)
		tail = (tail .. out .. errors):sub(-TAIL_BYTES)
		return out
	end
	while true do
		local ready, why, name = look(machine, news())
		if ready then return process end
		local result
		result, message, code = process:wait { timeout_ms = 0 }
		if result then
			news()
			return failed("ended with " .. how_it_ended(result) .. " before it was ready", "ECHILD")
		end
		if code ~= "ETIMEDOUT" then return failed(message, code) end
		if ready == nil then return failed(why, name) end
		local left = deadline - core.now_ms()
		if left <= 0 then
			return failed(("not ready (%s = %s) after %d ms"):format(trigger, wanted, timeout_ms), "ETIMEDOUT")
		end
		scheduler.await(process:fd(), process:events(), math.min(left, pause))
		pause = math.min(pause * 2, LOOK_MAX_MS)
	end
end

return service
