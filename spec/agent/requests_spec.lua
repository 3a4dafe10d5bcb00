-- The agent's short requests: files, TCP, identity and words.
local agent = require "spec.support.agent"
local core = require "supermachine.core"
local scheduler = require "supermachine.scheduler"
local scratch = require "spec.support.scratch"
local stream = require "supermachine.stream"

describe("the agent", function()
	local guest, folder
	setup(function() guest = agent.start() end)
	teardown(function() guest:close() end)
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	local function read(path, options)
		return scheduler.finish(core.agent_read_file_begin(guest.path, path, options))
	end
	local function write(path, data, options)
		return scheduler.finish(core.agent_write_file_begin(guest.path, path, data, options))
	end

	describe("with files", function()
		it("writes one and reads it back", function()
			local content = ("\0\1\2content"):rep(500000) -- 5 MB
			assert.is_true(write(folder .. "/file", content, { mode = 384 })) -- 0600
			local got, status = assert(read(folder .. "/file"))
			assert.is_true(got == content)
			assert.are.equal(#content, status.size)
			assert.are.equal(384, status.mode)
			assert.is_true(scratch.read(folder .. "/file") == content)
		end)

		it("takes an empty one, and replaces", function()
			assert.is_true(write(folder .. "/file", "something"))
			assert.is_true(write(folder .. "/file", ""))
			local got, status = assert(read(folder .. "/file"))
			assert.are.same({ "", 0, 420 }, { got, status.size, status.mode })
			assert.are.same({ "file" }, scratch.files(folder))
		end)

		it("reads what has no size, like /proc", function()
			assert.is_truthy(read("/proc/self/status"):find("Name:", 1, true))
		end)

		it("refuses what is too large", function()
			scratch.write(folder .. "/file", ("x"):rep(1000))
			assert.are.equal(1000, #read(folder .. "/file", { max_bytes = 1000 }))
			local got, message, code = read(folder .. "/file", { max_bytes = 999 })
			assert.are.same({ nil, ("read '%s/file': File too large"):format(folder), "EFBIG" }, { got, message, code })
			assert.are.equal("EFBIG", select(3, read("/dev/../proc/self/status", { max_bytes = 10 })))
		end)

		it("says what is wrong with a path", function()
			assert.are.same({ nil, ("read '%s/none': No such file or directory"):format(folder), "ENOENT" },
				{ read(folder .. "/none") })
			assert.are.equal("EISDIR", select(3, read(folder)))
			scratch.run("mkfifo " .. folder .. "/fifo")
			assert.are.equal("EINVAL", select(3, read(folder .. "/fifo")))
			assert.are.equal("EINVAL", select(3, read "relative"))
			assert.are.equal("ENOENT", select(3, write(folder .. "/no/file", "x")))
			assert.are.equal("ENAMETOOLONG", select(3, write(folder .. "/" .. ("x"):rep(300), "x")))
			assert.are.equal("ENAMETOOLONG", select(3, read("/" .. ("x"):rep(5000))))
			scratch.run("mkdir " .. folder .. "/taken")
			assert.are.equal("EISDIR", select(3, write(folder .. "/taken", "x")))
			assert.are.same({}, scratch.files(folder))
		end)

		it("leaves nothing of a file whose writer goes away", function()
			local link <close> = guest:stream()
			assert(link:write(agent.open(4, string.pack("<s4I4", folder .. "/half", 420))))
			assert(core.poll({ { link:fd(), "r" } }, 20000)[1])
			assert.are.equal(agent.frame(33), link:read())
			assert(link:write(agent.frame(7, "the first half")))
			-- The temporary is there, then it is not.
			local deadline = core.now_ms() + 20000
			while #scratch.files(folder) == 0 and core.now_ms() < deadline do core.poll({}, 5) end
			assert.are.equal(1, #scratch.files(folder))
			link:close()
			while #scratch.files(folder) > 0 and core.now_ms() < deadline do core.poll({}, 5) end
			assert.are.same({}, scratch.files(folder))
		end)
	end)

	describe("with TCP", function()
		local port, server, pid
		setup(function()
			server = assert(io.popen "echo $$; exec python3 spec/support/echo_server.py")
			pid = server:read "l"
			port = math.tointeger(server:read "l")
		end)
		teardown(function()
			os.execute("kill " .. pid)
			server:close()
		end)

		local function connect(number, options)
			return stream.wrap(scheduler.finish(core.agent_connect_begin(guest.path, number, options)))
		end

		it("connects, passes bytes both ways, and closes each way on its own", function()
			local link <close> = assert(connect(port))
			assert(link:write "hello\nworld\n")
			assert.are.equal("hello", link:read "l")
			assert.are.equal("world\n", link:read "L")
			assert(link:shutdown())
			assert.are.equal("12", link:read "a")
			assert.is_nil(link:read())
		end)

		it("passes megabytes", function()
			local data = ("0123456789"):rep(300000)
			local back
			scheduler.run(function()
				local link <close> = assert(connect(port, { address = "127.0.0.1" }))
				local writer = scheduler.go(function()
					assert(link:write(data))
					assert(link:shutdown())
				end)
				back = assert(link:read "a")
				writer:wait()
			end)
			assert.is_true(back == data .. #data)
		end)

		it("gives the guest's reason when it cannot", function()
			local link, message, code = connect(1)
			assert.are.same({ nil, "connect to 127.0.0.1 port 1: Connection refused", "ECONNREFUSED" },
				{ link, message, code })
			assert.are.equal("EINVAL", select(3, connect(port, { address = "localhost" })))
			assert.has_error(function() connect(0) end)
			assert.has_error(function() connect(65536) end)
		end)
	end)

	it("answers a ping and a sync", function()
		assert.is_true(scheduler.finish(core.agent_command_begin(guest.path, "ping")))
		assert.is_true(scheduler.finish(core.agent_command_begin(guest.path, "sync")))
	end)

	it("changes nothing of a host that it runs on", function()
		local done, message, code = scheduler.finish(core.agent_identity_begin(guest.path,
			{ clock_ns = 1, hostname = "changed", entropy = ("x"):rep(512) }))
		assert.are.same({ nil, "identity: this agent is not a machine's init", "EPERM" }, { done, message, code })
		done, message, code = scheduler.finish(core.agent_command_begin(guest.path, "drop_caches"))
		assert.are.same({ nil, "drop caches: this agent is not a machine's init", "EPERM" }, { done, message, code })
	end)

	it("knows what an identity may hold", function()
		for _, wish in ipairs {
			{ hostname = "" }, { hostname = ("x"):rep(65) }, { hostname = "a b" }, { hostname = "a\0b" },
			{ secrets = { "value" } }, { secrets = { path = "relative" } }, { secrets = { ["/path"] = 1 } },
			{ secrets = { ["/pa\0th"] = "" } }, { id = "short" }, { on_restore = {} }, { on_restore = { argv = { 1 } } },
		} do
			assert.has_error(function() core.agent_identity_begin(guest.path, wish) end)
		end
		local many = {}
		for i = 1, 64 do many["/secret/" .. i] = ("x"):rep(1 << 14) end
		assert.are.equal("E2BIG", select(3, scheduler.finish(core.agent_identity_begin(guest.path, { secrets = many }))))
		many["/secret/65"] = ""
		assert.has_error(function() core.agent_identity_begin(guest.path, { secrets = many }) end)
	end)

	it("ends on shutdown", function()
		local other <close> = agent.start()
		assert.is_true(scheduler.finish(core.agent_command_begin(other.path, "shutdown")))
		local deadline = core.now_ms() + 20000
		local state
		repeat
			core.poll({}, 5)
			local status = io.open("/proc/" .. other.pid .. "/stat")
			state = status and status:read("a"):match "%) (%u)"
			if status then status:close() end
		until not state or state == "Z" or core.now_ms() > deadline
		assert.is_true(not state or state == "Z")
		assert.are.equal("ENOENT", select(3, core.stream_over(other.path)))
	end)

	it("gives up when there is no answer in time", function()
		local silent <close> = agent.start_fake()
		assert.are.equal("ECONNRESET",
			select(3, scheduler.finish(core.agent_command_begin(silent.path, "ping", { timeout_ms = 20000 }))))
		os.execute("kill -STOP " .. guest.pid)
		local done, message, code = scheduler.finish(core.agent_command_begin(guest.path, "ping", { timeout_ms = 50 }))
		-- The same by the scheduler's own deadline, which cancels.
		local late = { scheduler.finish(core.agent_command_begin(guest.path, "ping"), 50) }
		os.execute("kill -CONT " .. guest.pid)
		assert.are.same({ nil, "the guest's agent: no answer in time", "ETIMEDOUT" }, { done, message, code })
		assert.are.same({ nil, "timed out", "ETIMEDOUT" }, late)
	end)
end)
