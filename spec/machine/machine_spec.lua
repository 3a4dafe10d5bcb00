local core = require "supermachine.core"
local guest = require "spec.support.microguest"
local folders = require "spec.support.folder"
local sm = require "supermachine"

-- The same specs over both transports.
for _, transport in ipairs { "direct", "worker" } do
	describe("a machine (" .. transport .. ") #kvm", function()
		local folder

		setup(function() folder = folders.new() end)
		teardown(function() folder:close() end)

		local count = 0
		local function kernel(code)
			count = count + 1
			return guest.write(folder:join("kernel" .. count), code)
		end
		local function machine(code, options)
			local request = { kernel = kernel(code), memory_mib = 16, transport = transport }
			for key, value in pairs(options or {}) do request[key] = value end
			return assert(sm.vm.new(request))
		end
		local function run(code, options)
			local vm <close> = machine(code, options)
			assert(vm:resume())
			local reason, detail = vm:wait { timeout_ms = 20000 }
			return reason, detail, vm:console(), vm
		end

		it("prints on its console and powers off", function()
			local reason, detail, console = run(guest.print "hello\n" .. guest.poweroff())
			assert.are.equal("poweroff", reason, detail)
			assert.are.equal("hello\n", console)
		end)

		it("ends with reset when the guest asks for one", function()
			assert.are.equal("reset", (run(guest.reset())))
		end)

		it("tells a kernel panic by the console's words", function()
			local reason, detail = run(guest.print "[1.0] Kernel panic - not syncing: no init\r\n" .. guest.reset())
			assert.are.equal("panic", reason)
			assert.are.equal("Kernel panic - not syncing: no init", detail)
		end)

		it("sees that every vCPU is halted for good", function()
			local reason = run(guest.halt(), { vcpus = 2 })
			assert.are.equal("halt", reason)
		end)

		it("shows the guest its virtio devices", function()
			local reason, _, console = run(guest.load(guest.mmio_base) .. guest.print_word() .. guest.poweroff())
			assert.are.equal("poweroff", reason)
			assert.are.equal("virt", console)
		end)

		it("reads nothing but ones where nothing is", function()
			local _, _, console = run(guest.load(guest.nothing) .. guest.print_word() .. guest.poweroff())
			assert.are.equal("\255\255\255\255", console)
		end)

		it("lists its devices in plan order", function()
			local vm <close> = machine(guest.halt())
			local devices = assert(vm:devices())
			local kinds = {}
			for i, device in ipairs(devices) do
				kinds[i] = device.kind
				assert.are.equal(guest.mmio_base + (i - 1) * guest.mmio_stride, device.mmio_base)
			end
			assert.are.same({ "vsock", "rng", "balloon" }, kinds)
			assert.are.same(kinds, (function()
				local planned = {}
				for i, slot in ipairs(vm:plan().slots) do planned[i] = slot.kind end
				return planned
			end)())
		end)

		it("pauses and goes on", function()
			local vm <close> = machine(guest.loop(guest.print "." .. guest.times(1000, guest.nop())))
			assert(vm:resume())
			-- The guest is seen to run, then seen to stand still.
			local cursor, text = 0, ""
			while #text < 10 do
				local chunk
				chunk, cursor = vm:console_from(cursor)
				text = text .. chunk
			end
			assert(vm:pause())
			local _, at = vm:console_from(cursor)
			local _, later = vm:console_from(at)
			assert.are.equal(at, later)
			assert(vm:resume())
			local now = later
			while now == later do _, now = vm:console_from(later) end
			assert.is_true(now > later)
		end)

		it("counts exits", function()
			local vm <close> = machine(guest.print "abc" .. guest.poweroff())
			assert(vm:resume())
			assert(vm:wait { timeout_ms = 20000 })
			local statistics = assert(vm:statistics())
			assert.are.equal(4, statistics.exits - statistics.kicks)
			assert.are.equal(0, statistics.unhandled)
		end)

		it("says where the time went", function()
			local vm <close> = machine(guest.print "abc" .. guest.poweroff())
			local built = assert(vm:timings())
			local sum = 0
			for _, stage in ipairs { "map", "vm", "memslot", "irqchip", "vcpus", "devices" } do
				local us = built[stage .. "_us"]
				assert.is_true(us > 0, stage)
				sum = sum + us
			end
			assert.is_true(sum <= built.total_us)
			assert.are.same({ 0, 0 }, { built.identity_us, built.first_run_us })
			assert(vm:resume())
			assert(vm:wait { timeout_ms = 20000 })
			assert.is_true(vm:timings().first_run_us > 0)
		end)

		it("can be closed while the guest spins", function()
			local vm = machine(guest.spin(), { vcpus = 2 })
			assert(vm:resume())
			vm:close()
			assert.has_error(function() vm:plan() end, "supermachine.vm is closed")
			vm:close()
		end)

		it("takes the most vCPUs a plan allows", function()
			local reason = run(guest.poweroff(), { vcpus = 16 })
			assert.are.equal("poweroff", reason)
		end)

		it("has memory to its last word", function()
			-- The rest is not touched, so it costs nothing.
			local last = guest.ram_base + (1024 << 20) - 4
			local reason, _, console = run(guest.store(last, 0x21646e65) .. guest.load(last) .. guest.print_word()
				.. guest.poweroff(), { memory_mib = 1024 })
			assert.are.equal("poweroff", reason)
			assert.are.equal("end!", console)
		end)

		it("refuses a file that is not a kernel, naming why", function()
			local path = folder:join "text"
			local file = assert(io.open(path, "w"))
			file:write(("not a kernel\n"):rep(1000))
			file:close()
			local vm, message, code = sm.vm.new { kernel = path, memory_mib = 16, transport = transport }
			assert.is_nil(vm)
			assert.are.equal("ENOEXEC", code)
			assert.matches("kernel", message)
		end)

		if guest.arch == "x86_64" then
			it("ends with reset when the guest pulses the keyboard controller's line", function()
				assert.are.equal("reset", (run(guest.out8(0x64, 0xfe) .. guest.hlt())))
			end)

			it("ends with triple-fault", function()
				assert.are.equal("triple-fault", (run(guest.triple_fault())))
			end)

			it("has memory above the 32-bit hole", function()
				-- 4 GiB less the hole and some.
				local reason = run(guest.poweroff(), { memory_mib = 4096 })
				assert.are.equal("poweroff", reason)
			end)
		end

		if guest.arch == "aarch64" then
			it("starts another vCPU by a firmware call", function()
				local function first(entry) return guest.psci(0xc4000003, 1, entry, 0) .. guest.spin() end -- CPU_ON
				local second = guest.print "second" .. guest.poweroff()
				local reason, _, console = run(first(guest.entry + #first(guest.entry)) .. second, { vcpus = 2 })
				assert.are.equal("poweroff", reason)
				assert.are.equal("second", console)
			end)
		end
	end)
end

describe("a machine in a worker #kvm", function()
	it("ends with worker-died when the process is killed", function()
		local folder <close> = folders.new()
		local vm <close> = assert(sm.vm.new {
			kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16, transport = "worker",
		})
		assert(vm:resume())
		local pid = assert(vm:pid())
		assert.is_true(os.execute("kill -9 " .. pid))
		assert.are.equal("worker-died", (vm:wait { timeout_ms = 20000 }))
		local ok, message, code = vm:pause()
		assert.is_nil(ok)
		assert.matches("worker", message)
		assert.are.equal("EPIPE", code)
	end)

	it("leaves no process behind", function()
		local folder <close> = folders.new()
		local vm = assert(sm.vm.new {
			kernel = guest.write(folder:join "kernel", guest.spin()), memory_mib = 16, transport = "worker",
		})
		assert(vm:resume())
		local pid = vm:pid()
		vm:close()
		assert.is_nil(io.open("/proc/" .. pid .. "/stat"))
	end)
end)

describe("machine options", function()
	local function refused(options, pattern, expected)
		options.kernel = "/proc/self/exe"
		local vm, message, code = sm.vm.new(options)
		assert.is_nil(vm)
		assert.matches(pattern, message)
		assert.are.equal(expected, code)
	end

	it("are held to their limits", function()
		refused({ vcpus = 0 }, "vcpus", "EINVAL")
		refused({ vcpus = 17 }, "vcpus", "EINVAL")
		refused({ memory_mib = 3 }, "memory_mib", "EINVAL")
	end)

	it("name a missing or closed /dev/kvm and what to do", function()
		refused({ device = "/nonexistent/kvm" }, "/nonexistent/kvm.*no KVM here", "ENOENT")
		refused({ device = "/dev/null" }, "KVM", "EOPNOTSUPP")
	end)

	it("raise when misspelt or of the wrong type", function()
		assert.error_matches(function() sm.vm.new { kernel = "x", memroy_mib = 1 } end, "unknown option 'memroy_mib'")
		assert.error_matches(function() sm.vm.new { kernel = "x", vcpus = "2" } end, "option 'vcpus': integer expected")
		assert.error_matches(function() sm.vm.new {} end, "option 'kernel' is missing")
		assert.error_matches(function() core.vm_begin { kernel = "x", transport = "pigeon" } end, "transport")
	end)

	it("name a kernel or disk that is missing", function()
		local vm, message, code = sm.vm.new { kernel = "/nonexistent/vmlinux" }
		assert.is_nil(vm)
		assert.matches("kernel: /nonexistent/vmlinux", message)
		assert.are.equal("ENOENT", code)
	end)
end)
