-- Neither side trusts the other's bytes.
local agent = require "spec.support.agent"
local core = require "supermachine.core"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"

local OPEN <const>, BODY <const>, STDIN <const>, STDIN_EOF <const>, SIGNAL <const>, RESIZE <const> = 1, 2, 3, 4, 5, 6
local DATA <const>, DATA_END <const>, HELLO <const> = 7, 8, 32
local OK <const>, ERROR <const>, STARTED <const> = 33, 34, 35
local STDOUT <const>, STDERR <const>, CREDIT <const> = 36, 37, 38
local EXIT <const>, FILE_END <const> = 40, 41
local EXEC <const>, CONNECT <const>, READ_FILE <const> = 1, 2, 3
local WRITE_FILE <const>, IDENTITY <const>, PING <const>, MOUNT <const> = 4, 5, 6, 10

describe("the agent, against its host", function()
	local guest
	setup(function() guest = agent.start() end)
	teardown(function() guest:close() end)

	local function ask(bytes, half_close)
		local link <close> = guest:stream()
		local from = 1
		while from <= #bytes do
			local count, message, code = link:write(bytes, from)
			if not count and code == "EPIPE" then break end
			if not count and code ~= "EAGAIN" then error(message) end
			from = from + (count or 0)
			if not count then assert(core.poll({ { link:fd(), "w" } }, 20000)[1], "not read") end
		end
		if half_close then assert(link:shutdown "w") end
		return agent.frames(link)
	end

	local function refused(bytes, expected)
		local frames = ask(bytes)
		local last = frames[#frames]
		assert.are.equal(ERROR, last and last[1])
		local _, message = string.unpack("<I4s4", last[2])
		assert.are.equal(expected, message)
	end

	local function exec_body(argv, flags, extra)
		local body = string.pack("<I4I2I2I4s4s4I4I4", flags or 0, 0, 0, 0, "", "", 0, #argv)
		for _, word in ipairs(argv) do body = body .. string.pack("<s4", word) end
		return body .. string.pack("<I4", 0) .. (extra or "")
	end

	after_each(function()
		assert.are.same({ { OK, "" } }, ask(agent.open(PING, "")))
		assert.are.equal("", guest:log())
	end)

	it("refuses frames that are none", function()
		refused(string.pack("<I4I2I2", 0xffffffff, OPEN, 0), "malformed frame: type 1, 4294967295 bytes")
		refused(string.pack("<I4I2I2", 65529, OPEN, 0), "malformed frame: type 1, 65529 bytes")
		refused(string.pack("<I4I2I2", 8, OPEN, 1), "malformed frame: type 1, 8 bytes")
		refused(agent.frame(OPEN, "short"), "malformed OPEN frame")
		refused(agent.frame(OPEN, string.pack("<I2I2I4B", 2, PING, 0, 0)), "malformed OPEN frame")
		refused(agent.frame(BODY, "x"), "frame of type 2 is not expected here")
		refused(agent.frame(999), "frame of type 999 is not expected here")
	end)

	it("refuses another version, an unknown kind, and too long a request", function()
		refused(agent.open(PING, "", 1), "protocol version 1, this agent speaks 2 to 3")
		refused(agent.open(PING, "", 4), "protocol version 4, this agent speaks 2 to 3")
		refused(agent.open(99, ""), "request of unknown kind 99")
		refused(agent.frame(OPEN, string.pack("<I2I2I4", 2, EXEC, (1 << 20) + 1)),
			"request of 1048577 bytes, at most 1048576 are allowed")
		refused(agent.frame(OPEN, string.pack("<I2I2I4", 2, EXEC, 3)) .. agent.frame(BODY, "four"),
			"request is longer than it said")
		refused(agent.frame(OPEN, string.pack("<I2I2I4", 2, EXEC, 3)) .. agent.frame(STDIN, "x"),
			"frame of type 3 is not expected here")
	end)

	it("refuses bodies that are malformed", function()
		local good = exec_body { "true" }
		for length = 0, #good - 1 do refused(agent.open(EXEC, good:sub(1, length)), "malformed EXEC request") end
		for _, body in ipairs {
			exec_body({ "true" }, 0, "x"), exec_body {}, exec_body({ "true" }, 16), exec_body { "tr\0ue" },
			good:sub(1, 20) .. string.pack("<I4", 0xffffffff) .. good:sub(25), -- limits
			good:sub(1, 24) .. string.pack("<I4", 0xffffffff) .. good:sub(29), -- argv
			good:sub(1, -5) .. string.pack("<I4s4", 1, "NO-EQUALS-SIGN"),
			string.pack("<I4I2I2I4s4s4I4I4I8I8I4s4I4", 0, 0, 0, 0, "", "", 1, 77, 1, 1, 1, "true", 0),
		} do
			refused(agent.open(EXEC, body), "malformed EXEC request")
		end
		refused(agent.open(CONNECT, string.pack("<s4I2", "", 0)), "malformed CONNECT request")
		refused(agent.open(READ_FILE, "x"), "malformed READ_FILE request")
		refused(agent.open(WRITE_FILE, string.pack("<s4I4", "/x", 1 << 20)), "malformed WRITE_FILE request")
		local mount = "<s4s4s4s4I4s4"
		local all = string.pack(mount, "virtiofs", "tag", "/src", "", 1, "")
		for length = 0, #all - 1 do refused(agent.open(MOUNT, all:sub(1, length), 3), "malformed MOUNT request") end
		for _, body in ipairs {
			string.pack(mount, "", "tag", "/src", "", 0, ""), string.pack(mount, "virtiofs", "", "/src", "", 0, ""),
			string.pack(mount, "virtiofs", "tag", "/src", "", 2, ""), string.pack(mount, "virtiofs", "t\0g", "/src", "", 0, ""),
			all .. "x",
		} do
			refused(agent.open(MOUNT, body, 3), "malformed MOUNT request")
		end
		refused(agent.open(MOUNT, all, 3), "mount: this agent is not a machine's init")
		local identity = "<I8s4s4s4I4"
		local whole = string.pack(identity .. "s4s4s4", 1, "name", "entropy", ("i"):rep(16), 1, "/path", "secret", "")
		for length = 0, #whole - 1 do refused(agent.open(IDENTITY, whole:sub(1, length)), "malformed IDENTITY request") end
		for _, body in ipairs {
			string.pack(identity .. "I4", 0, ("x"):rep(65), "", "", 0, 0),
			string.pack(identity .. "I4", 0, "", ("x"):rep(513), "", 0, 0),
			string.pack(identity .. "I4", 0, "", "", ("i"):rep(15), 0, 0),
			string.pack(identity .. "I4", 0, "", "", ("i"):rep(17), 0, 0),
			string.pack(identity, 0, "", "", "", 65) .. string.pack("<s4s4", "/path", ""):rep(65) .. ("\0"):rep(4),
			string.pack(identity, 0, "", "", "", 0xffffffff),
			string.pack(identity .. "s4s4I4", 0, "", "", "", 1, "/pa\0th", "", 0), whole .. "x",
		} do
			refused(agent.open(IDENTITY, body), "malformed IDENTITY request")
		end
		-- Sound, and still not for this agent.
		refused(agent.open(IDENTITY, whole), "identity: this agent is not a machine's init")
		refused(agent.open(PING, "x"), "malformed request")
	end)

	it("refuses frames that do not fit the request, and ends its process", function()
		local open = agent.open(EXEC, exec_body({ "sleep", "1000" }, 2))
		refused(agent.open(EXEC, exec_body { "sleep", "1000" }) .. agent.frame(STDIN, "x"),
			"frame of type 3 is not expected here")
		refused(open .. agent.frame(STDIN_EOF) .. agent.frame(STDIN_EOF), "frame of type 4 is not expected here")
		refused(open .. agent.frame(SIGNAL, string.pack("<I4", 0)), "malformed SIGNAL frame")
		refused(open .. agent.frame(SIGNAL, string.pack("<I4", 65)), "malformed SIGNAL frame")
		refused(open .. agent.frame(RESIZE, string.pack("<I2I2", 1, 1)), "malformed RESIZE frame, or no terminal")
		refused(open .. agent.frame(DATA, "x"), "frame of type 7 is not expected here")
		refused(open .. agent.frame(OPEN, "x"), "frame of type 1 is not expected here")
		local flood = agent.frame(STDIN, ("x"):rep(60000))
		refused(open .. flood:rep(8), "more standard input than the window allows")
		local deadline = core.now_ms() + 20000
		while guest:children() > 0 and core.now_ms() < deadline do core.poll({}, 10) end
		assert.are.equal(0, guest:children())
	end)

	it("takes a connection that ends anywhere", function()
		local whole = agent.open(EXEC, exec_body({ "cat" }, 2)) .. agent.frame(STDIN, "x") .. agent.frame(STDIN_EOF)
		for length = 0, #whole - 1, 7 do ask(whole:sub(1, length), true) end
	end)

	it("serves others while one does not read its output", function()
		local link <close> = guest:stream()
		assert(link:write(agent.open(EXEC, exec_body { "cat", "/dev/zero" })))
		assert(core.poll({ { link:fd(), "r" } }, 20000)[1])
		assert.are.equal("x\n", process.exec(guest, { "echo", "x" }).stdout)
	end)
end)

describe("the host, against its guest", function()
	local guest
	setup(function() guest = agent.start_fake() end)
	teardown(function() guest:close() end)

	local function pid(number) return agent.frame(STARTED, string.pack("<I4", number or 5)) end
	local function exit(code, signal, flags)
		return agent.frame(EXIT, string.pack("<I4I4I4I8I8I8I8", code, signal or 0, flags or 0, 1, 2, 3, 4))
	end

	local function exec_against(bytes)
		guest:answer_with(bytes)
		return process.exec(guest, { "x" })
	end

	it("takes what is right", function()
		local result = exec_against(pid() .. agent.frame(STDOUT, "o") .. agent.frame(STDERR, "e") .. exit(3))
		assert.are.same({
			code = 3, stdout = "o", stderr = "e", duration_ms = 0.001, user_ms = 0.002, system_ms = 0.003,
			max_rss_bytes = 4, truncated = false,
		}, result)
	end)

	it("refuses what is not, and keeps what came before", function()
		for _, bytes in ipairs {
			agent.frame(STDOUT, "x"), exit(0), pid() .. pid(), pid(0), agent.frame(STARTED, "xxx"),
			pid() .. exit(256), pid() .. exit(1, 1), pid() .. exit(0, 200), pid() .. exit(0, 0, 2),
			pid() .. agent.frame(EXIT, "x"), pid() .. agent.frame(CREDIT, string.pack("<I4", 1)), agent.frame(OK),
			agent.frame(ERROR, "x"), agent.frame(ERROR, string.pack("<I4s4", 0, "x")),
			agent.frame(ERROR, string.pack("<I4s4", 5000, "x")), agent.frame(HELLO), agent.frame(OPEN),
			string.pack("<I4I2I2", 65529, STDOUT, 0), string.pack("<I4I2I2", 0xffffffff, STARTED, 0),
			string.pack("<I4I2I2", 0, OK, 1), agent.frame(0), agent.frame(65535),
		} do
			local result, message, code = exec_against(bytes)
			assert.are.same({ nil, "EBADMSG" }, { result, code })
			assert.is_truthy(message:find("the guest's agent sent a", 1, true))
		end
		local _, _, code, partial = exec_against(pid() .. agent.frame(STDOUT, "kept") .. agent.frame(999))
		assert.are.same({ "EBADMSG", "kept" }, { code, partial.stdout })
	end)

	it("says so when the connection ends early", function()
		local _, message, code = exec_against ""
		assert.are.same({ "the guest's agent closed the connection before it started the process", "ECONNRESET" },
			{ message, code })
		_, message, code = exec_against(pid() .. agent.frame(STDOUT, "half"):sub(1, -2))
		assert.are.same({ "the guest's agent closed the connection", "ECONNRESET" }, { message, code })
	end)

	it("takes a hook's end by its code, whatever else is said", function()
		local function hook(bytes)
			guest:answer_with(bytes)
			return select(2, scheduler.finish(core.agent_identity_begin(guest.path,
				{ on_restore = { argv = { "hook", "x" } }, timeout_ms = 20000 })))
		end
		assert.is_nil(hook(pid() .. agent.frame(STDOUT, "o") .. exit(0)))
		assert.are.equal("on_restore hook: ended with code 3: no [2J way ",
			hook(pid() .. agent.frame(STDERR, "no\27[2J") .. agent.frame(STDERR, "\0way\n") .. exit(3)))
		assert.are.equal("on_restore hook: ended with signal 9: ", hook(pid() .. exit(0, 9)))
		-- The end of a flood.
		local message = hook(pid() .. agent.frame(STDERR, ("x"):rep(60000)):rep(9) .. agent.frame(STDERR, "end") .. exit(1))
		assert.are.equal("on_restore hook: ended with code 1: " .. ("x"):rep(397) .. "end", message)
		assert.are.equal("on_restore hook: the guest's agent sent a wrong frame: type 33, 0 bytes", hook(agent.frame(OK)))
		assert.matches("^on_restore hook: the guest's agent closed the connection", hook(pid()))
		local refusal = agent.frame(ERROR, string.pack("<I4s4", 2, "run 'hook': none"))
		assert.are.equal("on_restore hook: run 'hook': none", hook(refusal))
	end)

	it("passes on the guest's reason without its control characters", function()
		local _, message, code = exec_against(agent.frame(ERROR, string.pack("<I4s4", 2, "no\27[2Jway\n")))
		assert.are.same({ "no?[2Jway?", "ENOENT" }, { message, code })
	end)

	it("holds no more output than it is told, whatever is sent", function()
		local flood = agent.frame(STDOUT, ("x"):rep(65528)):rep(320) -- 20 MiB
		guest:answer_with(pid() .. flood .. exit(0))
		local result = assert(process.exec(guest, { "x" }, { max_output_bytes = 100 }))
		assert.are.same({ 100, true }, { #result.stdout, result.truncated })
	end)

	it("refuses wrong answers to short requests", function()
		local function against(bytes, name, ...)
			guest:answer_with(bytes)
			local result, message, code = scheduler.finish(core[name](guest.path, ...))
			assert.is_nil(result)
			return code, message
		end
		assert.are.equal("EBADMSG", against(agent.frame(OK, "x"), "agent_command_begin", "ping"))
		assert.are.equal("EBADMSG", against(agent.frame(STARTED), "agent_command_begin", "ping"))
		assert.are.equal("ECONNRESET", against(agent.frame(OK):sub(1, 5), "agent_command_begin", "ping"))
		assert.are.equal("EBADMSG", against(agent.frame(OK), "agent_read_file_begin", "/x"))
		assert.are.equal("EFBIG", against(agent.frame(DATA, ("x"):rep(11)), "agent_read_file_begin", "/x",
			{ max_bytes = 10 }))
		assert.are.equal("EBADMSG", against(agent.frame(DATA, "x") .. agent.frame(FILE_END,
			string.pack("<I8I4I4I4", 2, 0, 0, 0)), "agent_read_file_begin", "/x"))
		assert.are.equal("EBADMSG", against(agent.frame(FILE_END, string.pack("<I8I4I4I4", 0, 1 << 20, 0, 0)),
			"agent_read_file_begin", "/x"))
		assert.are.equal("EBADMSG", against(agent.frame(OK) .. agent.frame(DATA_END), "agent_write_file_begin", "/x", "x"))
		assert.are.equal("ENOSPC", against(agent.frame(OK) .. agent.frame(ERROR, string.pack("<I4s4", 28, "full")),
			"agent_write_file_begin", "/x", ("x"):rep(1 << 22)))
		assert.are.equal("EBADMSG", against(agent.frame(DATA), "agent_connect_begin", 80))
	end)
end)
