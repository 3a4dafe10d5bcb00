local core = require "supermachine.core"
local lab = require "spec.support.lab"
local sm = require "supermachine"

describe("an image booted as a machine #lab", function()
	it("has all its layers merged, with owners, modes, attributes and links", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128 })
		assert.are.equal("ok", lab.output(vm, { "sh", "/etc/supermachine/check" }))
	end)

	it("has the file systems, the network and the name that programs expect", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128, vcpus = 4 })
		local mounts = lab.shell(vm, "cut -d' ' -f2,3 /proc/mounts")
		for _, mount in ipairs {
			"/ overlay", "/proc proc", "/sys sysfs", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/tmp tmpfs",
			"/sys/fs/cgroup cgroup2",
		} do
			assert.is_truthy(("\n" .. mounts .. "\n"):find("\n" .. mount .. "\n", 1, true), mount .. " in " .. mounts)
		end
		assert.are.equal("4", lab.shell(vm, "grep -c ^processor /proc/cpuinfo"))
		local clock = { x86_64 = "kvm-clock", aarch64 = "arch_sys_counter" }
		assert.are.equal(clock[vm:plan().arch],
			lab.shell(vm, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"))
		assert.matches("127%.0%.0%.1", lab.shell(vm, "ip addr show lo 2>/dev/null || ifconfig lo"))
		assert.are_not.equal("", lab.shell(vm, "hostname"))
		assert.are.equal("written", lab.shell(vm, "echo written >/new && cat /new"))
	end)

	it("runs in a worker process too", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128, transport = "worker" })
		assert.are.equal("42", lab.shell(vm, "echo $((6 * 7))"))
		assert.is_truthy(vm:pid())
	end)

	it("counts what its devices do", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128 })
		lab.shell(vm, "cat /bin/busybox >/dev/null")
		local by_kind = {}
		for _, device in ipairs(assert(vm:devices())) do by_kind[device.kind] = device end
		assert.is_true(by_kind.block.requests > 0 and by_kind.block.bytes > 0)
		assert.is_true(by_kind.vsock.requests > 0 and by_kind.vsock.interrupts > 0)
		assert.are.equal(0, by_kind.block.errors)
	end)

	it("gives memory back through the balloon", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128 })
		assert(vm:set_balloon(32))
		local statistics
		for _ = 1, 200 do
			statistics = assert(vm:statistics())
			if statistics.balloon_mib == 32 then break end
			lab.shell(vm, "true")
		end
		assert.are.equal(32, statistics.balloon_mib)
		local vm_memory, message = vm:set_balloon(4096)
		assert.is_nil(vm_memory)
		assert.matches("balloon", message)
	end)

	it("ends with the reason the guest gave", function()
		local ends = { poweroff = "poweroff", reboot = "reset", halt = "halt" }
		-- A halted Linux spins there, with interrupts off.
		if core.plan({}).arch == "aarch64" then ends.halt = nil end
		for command, expected in pairs(ends) do
			local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128 })
			local process <close> = assert(vm:spawn { "sh", "-c", command .. " -f" })
			assert.are.equal(expected, (vm:wait { timeout_ms = 60000 }))
			assert.is_truthy(process)
		end
	end)

	it("ends with panic and the kernel's words; the process says that the guest is gone", function()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128 })
		local result, message, code = vm:exec({
			"sh", "-c", "echo 2 >/proc/sys/vm/panic_on_oom; mount -o remount,size=1g /dev/shm; cat /dev/zero >/dev/shm/fill",
		}, { timeout_ms = 120000 })
		assert.is_nil(result)
		assert.are.equal("ECONNRESET", code, message)
		local reason, detail = vm:wait { timeout_ms = 60000 }
		assert.are.equal("panic", reason)
		assert.matches("Kernel panic %- not syncing", detail)
	end)

	it("says what it waits for when the guest never gets ready", function()
		local vm, message, code = lab.image("busybox"):boot {
			memory_mib = 128, cmdline = "rdinit=/nonexistent init=/nonexistent", timeout_ms = 60000,
		}
		assert.is_nil(vm)
		assert.matches("agent is not ready", message)
		assert.matches("panic", message)
		assert.is_truthy(code)
	end)
end)

describe("processes of a guest #lab", function()
	local vm
	setup(function() vm = assert(lab.snapshot():restore()) end)
	teardown(function() vm:close() end)

	it("end with a code or a signal, and tell time and memory", function()
		local result = assert(vm:exec({ "sh", "-c", "echo out; echo err >&2; exit 3" }))
		assert.are.equal(3, result.code)
		assert.are.equal("out\n", result.stdout)
		assert.are.equal("err\n", result.stderr)
		assert.is_true(result.duration_ms > 0 and result.max_rss_bytes > 0)
		local killed = assert(vm:exec({ "sh", "-c", "kill -9 $$" }))
		assert.are.equal(9, killed.signal)
	end)

	it("get environment, folder and user; the image's are the default", function()
		assert.are.equal("x", lab.shell(vm, "echo $A", { env = { A = "x" } }))
		assert.are.equal("/tmp", lab.shell(vm, "pwd", { cwd = "/tmp" }))
		assert.are.equal("1234", lab.shell(vm, "id -u", { user = "1234" }))
		local image = lab.image "busybox"
		local name, value = image:process().env[1]:match "^([^=]+)=(.*)$"
		assert.are.equal(value, lab.shell(vm, "echo $" .. name))
	end)

	it("end when their time is up", function()
		local result, message, code = vm:exec({ "sleep", "1000" }, { timeout_ms = 300 })
		assert.is_nil(result)
		assert.are.equal("ETIMEDOUT", code, message)
		assert.are.equal("", lab.shell(vm, "pidof sleep || true"))
	end)

	it("that do not exist are named", function()
		local result, message, code = vm:exec({ "/no/such/program" })
		assert.is_nil(result)
		assert.matches("/no/such/program", message)
		assert.are.equal("ENOENT", code)
	end)

	it("move megabytes both ways", function()
		local data = ("0123456789abcdef"):rep(65536)
		local result = assert(vm:exec({ "cat" }, { stdin = data, timeout_ms = 60000 }))
		assert.are.equal(#data, #result.stdout)
		assert.is_true(data == result.stdout)
	end)

	it("leave files that the host reads, and read what it writes", function()
		assert(vm:write_file("/tmp/from-host", "hello\n", { mode = 384 }))
		assert.are.equal("hello", lab.shell(vm, "cat /tmp/from-host"))
		assert.are.equal("600", lab.shell(vm, "stat -c %a /tmp/from-host"))
		lab.shell(vm, "printf 'a\\000b' >/tmp/from-guest")
		local content, info = assert(vm:read_file "/tmp/from-guest")
		assert.are.equal("a\0b", content)
		assert.are.equal(3, info.size)
		local nothing, message, code = vm:read_file "/tmp/nothing"
		assert.is_nil(nothing)
		assert.matches("/tmp/nothing", message)
		assert.are.equal("ENOENT", code)
	end)

	it("are reached on TCP ports", function()
		local server <close> = assert(vm:spawn { "nc", "-l", "-p", "7777", "-e", "cat" })
		local stream
		for _ = 1, 200 do
			stream = vm:connect(7777, { timeout_ms = 10000 })
			if stream then break end
			lab.shell(vm, "true")
		end
		assert.is_truthy(stream)
		assert(stream:write "ping")
		assert.are.equal("ping", assert(stream:read(4)))
		stream:close()
		assert.is_truthy(server)
		local refused, message, code = vm:connect(7778, { timeout_ms = 10000 })
		assert.is_nil(refused)
		assert.are.equal("ECONNREFUSED", code, message)
	end)

	it("run side by side in one machine", function()
		local answers = {}
		sm.run(function()
			for i = 1, 8 do
				sm.go(function() answers[i] = lab.shell(vm, "echo " .. i) end)
			end
		end)
		assert.are.same({ "1", "2", "3", "4", "5", "6", "7", "8" }, answers)
	end)
end)
