-- Services that a bake starts and waits for, and leaves running.
local agent = require "spec.support.agent"
local core = require "supermachine.core"
local lab = require "spec.support.lab"
local process = require "supermachine.process"
local scheduler = require "supermachine.scheduler"
local service = require "supermachine.service"

describe("a service", function()
	local guest
	setup(function() guest = agent.start() end)
	teardown(function() guest:close() end)

	-- What a machine has, over an agent that runs here.
	local machine = { text = "" }
	function machine:spawn(argv, options) -- luacheck: ignore 212
		return process.spawn(guest, argv, options)
	end
	function machine:read_file(path) -- luacheck: ignore 212
		local file <close> = assert(io.open(path))
		return file:read "a"
	end
	function machine:console_from(cursor) return self.text:sub(cursor + 1), #self.text end

	local function start(script, trigger, wanted, timeout_ms)
		return service.start(machine, { "sh", "-c", script }, trigger, wanted, timeout_ms or 20000)
	end

	-- An end, for whoever is still there.
	local function stop(handle)
		local pid = handle:pid()
		handle:close()
		os.execute(("kill -9 -%d"):format(pid))
		while guest:children() > 0 do scheduler.sleep(5) end
	end

	it("is ready when a text is in its output, in however many pieces", function()
		local handle = assert(start("echo one; printf re; sleep 0.1; printf ady; exec sleep 600", "ready_stdout", "ready"))
		stop(handle)
	end)

	it("is ready when a text is on the console", function()
		machine.text = "booting"
		local looked = 0
		local slow = setmetatable({
			console_from = function(_, cursor)
				looked = looked + 1
				if looked == 3 then machine.text = machine.text .. ", up" end
				return machine:console_from(cursor)
			end,
		}, { __index = machine })
		stop(assert(service.start(slow, { "sleep", "600" }, "ready_console", "ing, up", 20000)))
		assert.are.equal(3, looked)
	end)

	it("is ready after a time", function()
		local before = core.now_ms()
		stop(assert(start("exec sleep 600", "ready_ms", 60)))
		assert.is_true(core.now_ms() - before >= 60)
	end)

	it("is ready when it listens on a port, which nobody connects to", function()
		local script = [[exec python3 -c '
import select, socket, sys, time
time.sleep(0.1)
server = socket.socket()
server.bind(("127.0.0.1", 0))
print(server.getsockname()[1], file=sys.stderr, flush=True)
server.listen()
print("connected" if select.select([server], [], [], 600)[0] else "")']]
		-- Which port it is to be is seen by starting another that takes a free one.
		local probe = assert(machine:spawn({ "sh", "-c", script }, { stdin = false }))
		local port = assert(math.tointeger(tonumber((probe:read("l", { stderr = true })))))
		probe:close()
		script = script:gsub('"127.0.0.1", 0', ('"127.0.0.1", %d'):format(port))
		local handle = assert(start(script, "ready_port", port))
		local said, _, code = handle:read("l", { timeout_ms = 50 })
		assert.are.same({ nil, "ETIMEDOUT" }, { said, code })
		stop(handle)
	end)

	it("that ends before it is ready is an error at once, with its end and its last words", function()
		local handle, message, code = start("echo starting; echo no such file >&2; exit 7", "ready_port", 1)
		assert.are.same({ nil, "ECHILD" }, { handle, code })
		assert.are.equal("service sh: ended with code 7 before it was ready; its last output: starting\nno such file\n",
			message)
		handle, message, code = start("kill -9 $$", "ready_ms", 60000)
		assert.are.same({ nil, "ECHILD" }, { handle, code })
		assert.matches("ended with signal 9 before it was ready; its last output: %(nothing%)", message)
		handle, message, code = service.start(machine, { "/no/such/program" }, "ready_ms", 1, 1000)
		assert.are.same({ nil, "ENOENT" }, { handle, code })
		assert.matches("service /no/such/program: ", message)
	end)

	it("that is not ready in time is an error with its last words", function()
		local handle, message, code = start("echo $$; exec sleep 600", "ready_stdout", "never", 300)
		assert.are.same({ nil, "ETIMEDOUT" }, { handle, code })
		local pid = message:match "service sh: not ready %(ready_stdout = never%) after 300 ms; its last output: (%d+)\n$"
		os.execute("kill -9 " .. assert(pid, message))
		while guest:children() > 0 do scheduler.sleep(5) end
	end)

	it("is asked for by options that make sense together", function()
		local function refused(pattern, given)
			local fine, message = pcall(service.check, given)
			assert.is_false(fine)
			assert.matches(pattern, message)
		end
		assert.is_nil(service.check { warmup = { "true" } })
		assert.are.equal("ready_port", service.check { service = { "httpd" }, ready_port = 80 })
		refused("one of ready_port, ready_console, ready_stdout, ready_ms is needed", { service = { "httpd" } })
		refused("'ready_port' and 'ready_ms': one says when", { ready_port = 80, ready_ms = 0 })
		refused("'ready_port': 1 to 65535", { ready_port = 65536 })
		refused("'ready_ms' is negative", { ready_ms = -1 })
		refused("'ready_console': empty", { ready_console = "" })
		refused("argv: empty", { service = {}, ready_ms = 0 })
	end)

	it("is found in the kernel's table of sockets", function()
		local text = "  sl  local_address rem_address   st tx_queue\n"
			.. "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n"
			.. "   1: 0100007F:0050 0100007F:9999 01 00000000:00000000\n"
			.. "  10: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0\n"
		assert.is_true(service.listens(text, 8080))
		assert.is_true(service.listens(text, 22))
		assert.is_false(service.listens(text, 80)) -- a connection
		assert.is_false(service.listens(text, 0x9999))
	end)
end)

describe("a bake with a service #lab", function()
	local function bake(options)
		options.memory_mib, options.timeout_ms = 128, 120000
		return lab.image("busybox"):bake(options)
	end

	it("has it running in every clone", function()
		local snapshot <close> = assert(bake {
			service = { "sh", "-c", "echo hello >/dev/shm/index.html; exec httpd -f -p 8080 -h /dev/shm" },
			ready_port = 8080, warmup = { "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/index.html" },
		})
		for _ = 1, 2 do
			local vm <close> = assert(snapshot:restore())
			assert.are.equal("hello", lab.output(vm, { "wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html" }))
		end
	end)

	it("can be the image's own command, asked for on the command line", function()
		local build = require "spec.support.build"
		local scratch = require "spec.support.scratch"
		local command = "XDG_DATA_HOME=%s %s/supermachine bake --quiet --memory 128 --ready-stdout up %s -- %s"
		local path = scratch.run(command:format(scratch.quote(lab.store()), build.dir, lab.reference "busybox",
			"sh -c 'echo up; exec sleep 100000'"))
		local snapshot <close> = assert(require("supermachine").snapshot.open(path))
		local vm <close> = assert(snapshot:restore())
		assert.matches("sleep 100000", lab.shell(vm, "ps"))
	end)

	it("is not hindered by nobody reading what it writes", function()
		local snapshot <close> = assert(bake {
			service = { "sh", "-c", [[
				i=0
				while :; do
					i=$((i + 1))
					echo "a line that nobody reads, number $i"
					echo $i >/dev/shm/count
				done]] },
			ready_stdout = "number 2",
		})
		local vm <close> = assert(snapshot:restore())
		-- It is empty for a moment each time.
		local first = tonumber(lab.shell(vm, [[until n=$(cat /dev/shm/count) && [ -n "$n" ]; do :; done; echo $n]]))
		-- More than a pipe holds.
		lab.shell(vm, ("until [ $(cat /dev/shm/count || echo 0) -gt %d ]; do :; done"):format(first + 3000))
	end)

	it("waits for a text on the console, and tells of one that ends", function()
		local snapshot <close> = assert(bake {
			service = { "sh", "-c", "echo service is up >/dev/console; exec sleep 100000" },
			ready_console = "service is up",
		})
		assert.is_truthy(snapshot)
		local none, message, code = bake { service = { "sh", "-c", "echo bad luck; exit 3" }, ready_port = 9 }
		assert.are.same({ nil, "ECHILD" }, { none, code })
		assert.matches("service sh: ended with code 3 before it was ready; its last output: bad luck", message)
	end)

	it("has in memory what the warm-up has read", function()
		local function cached_kib(policy)
			local snapshot <close> = assert(bake { warmup = { "true" }, drop_caches = policy })
			local vm <close> = assert(snapshot:restore())
			return tonumber(assert(vm:read_file "/proc/meminfo"):match "\nCached:%s*(%d+)")
		end
		local all = cached_kib "none"
		assert.is_true(all > 1000, all) -- busybox alone is more
		assert.is_true(cached_kib "boot" > all * 0.9)
		assert.is_true(cached_kib "all" < all * 0.5)
	end)

	it("has holes where the guest had caches and free pages", function()
		local warmup = { "sh", "-c", "cat /bin/* >/dev/null; head -c 30000000 /dev/urandom >/dev/shm/x; rm /dev/shm/x" }
		local function mib(policy)
			local freed = 0
			local snapshot <close> = assert(bake {
				warmup = warmup, drop_caches = policy,
				on_stage = function(name, _, details) freed = name == "trim" and details.freed_mib or freed end,
			})
			local vm <close> = assert(snapshot:restore())
			assert.are.equal("ok", lab.output(vm, { "echo", "ok" }))
			return snapshot:ram_bytes() / (1 << 20), freed
		end
		local none, nothing = mib "none"
		local boot, freed = mib "boot"
		local all = mib "all"
		print(("RAM files: %.1f MiB; without free pages %.1f MiB; without caches %.1f MiB"):format(none, boot, all))
		assert.are.equal(0, nothing)
		assert.is_true(freed > 40, freed)
		-- The guest gives large free blocks back by itself, after a while: how much of them it has is a matter of time.
		assert.is_true(boot < none)
		assert.is_true(all < boot)
	end)
end)
