-- Init and agent in a real guest: what they can only do there.
local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local paths = require "supermachine.paths"
local scheduler = require "supermachine.scheduler"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

describe("the guest's init #lab", function()
	local function bare(cmdline)
		local kernel = assert(paths.kernel())
		return assert(sm.vm.new {
			kernel = kernel, initrd = assert(paths.initramfs(paths.modules(kernel))), memory_mib = 128, agent = true,
			cmdline = cmdline,
		})
	end

	it("serves from the initramfs when there is no disk", function()
		local vm <close> = bare "supermachine.hostname=bare"
		assert(vm:resume())
		assert(vm:wait_ready { timeout_ms = 60000 })
		assert.are.equal("bare\n", (vm:read_file "/proc/sys/kernel/hostname"))
		assert.are.equal(2, assert(vm:exec { "/init" }).code)
		assert.is_true(vm:command "shutdown")
		assert.are.equal("poweroff", (vm:wait { timeout_ms = 60000 }))
	end)

	it("powers off with the reason on the console when it cannot go on", function()
		for cmdline, reason in pairs {
			["supermachine.nope=1"] = "kernel command line: unknown option supermachine.nope",
			["supermachine.layers=3"] = "disk /dev/vda has 0 layers, 1 to 255 are possible",
			["supermachine.upper_mib=x"] = "supermachine.upper_mib=x: not a number in range",
		} do
			local vm <close> = bare(cmdline)
			assert(vm:resume())
			assert.are.equal("poweroff", (vm:wait { timeout_ms = 60000 }))
			assert.is_truthy(vm:console():find("supermachine: init: " .. reason .. ": powering off", 1, true))
		end
	end)

	it("names what the kernel lacks", function()
		-- Debian's kernel without the modules that lie beside it.
		local folder <close> = folders.new()
		scratch.run(("ln -s \"$(realpath '%s/debian-kernel/vmlinuz')\" '%s'"):format(build.dir, folder:join "kernel"))
		local vm, message = lab.image("busybox"):boot { memory_mib = 256, kernel = folder:join "kernel" }
		assert.is_nil(vm)
		assert.matches("the kernel lacks CONFIG_VIRTIO_MMIO, .*CONFIG_EROFS_FS", message)
	end)

	it("takes its options", function()
		local vm <close> = assert(lab.image("busybox"):boot {
			memory_mib = 128, cmdline = "supermachine.hostname=box supermachine.upper_mib=8",
		})
		assert.are.equal("box", lab.shell(vm, "hostname"))
		local full = assert(vm:exec { "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=16" })
		assert.is_truthy(full.stderr:find("No space left on device", 1, true))
		lab.shell(vm, "rm /big")
		-- A full disk in the middle of a file: the reason arrives, and nothing stays.
		local done, message, code = vm:write_file("/root/big", ("x"):rep(16 << 20), { timeout_ms = 60000 })
		assert.are.same({ nil, "write '/root/big': No space left on device", "ENOSPC" }, { done, message, code })
		assert.are.equal("", lab.shell(vm, "ls /root | grep big || true"))
	end)
end)

describe("the agent in a machine #lab", function()
	local vm
	setup(function() vm = assert(lab.snapshot():restore()) end)
	teardown(function() vm:close() end)

	local function cgroups() return lab.shell(vm, "ls /sys/fs/cgroup | grep -c ^exec-") end

	it("limits memory", function()
		local result = assert(vm:exec({ "tail", "/dev/zero" }, { limits = { memory_bytes = 8 << 20 } }))
		assert.are.equal(9, result.signal)
		assert.are.equal("8388608", lab.shell(vm, "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max",
			{ limits = { memory_bytes = 8 << 20 } }))
	end)

	it("kills those, too, that left the process group", function()
		local _, _, code = vm:exec({ "sh", "-c", "setsid sleep 777 & sleep 1000" }, { timeout_ms = 1000 })
		assert.are.equal("ETIMEDOUT", code)
		assert.are.equal("", lab.shell(vm, "pidof sleep || true"))
		assert.are.equal("1", cgroups())
	end)

	it("keeps cgroups of its own below the root, so that the first process's is not the first", function()
		assert.are.equal("keep-0 keep-1 keep-2 keep-3", lab.shell(vm, "cd /sys/fs/cgroup && echo keep*"))
	end)

	it("lets those live that a process left behind, and removes their cgroup when they end", function()
		local pid = lab.shell(vm, "sleep 1000 >/dev/null 2>&1 & echo $!")
		assert.are.equal("2", cgroups())
		lab.shell(vm, "kill " .. pid)
		assert.are.equal("1", cgroups())
	end)

	it("gives users of the image their groups and home", function()
		assert.are.equal("0 0 /root", lab.shell(vm, "echo $(id -u) $(id -g) $HOME", { user = "root" }))
		assert.are.equal("5 6", lab.shell(vm, "echo $(id -u) $(id -g)", { user = "5:6" }))
	end)

	it("sets clock, host name and entropy", function()
		local link = assert(vm:vsock(core.AGENT_PORT))
		assert.is_true(scheduler.finish(core.agent_identity_begin(link, {
			clock_ns = 2000000000 * 1000000000, hostname = "renamed", entropy = ("e"):rep(64), timeout_ms = 60000,
		})))
		assert.are.equal("renamed", lab.shell(vm, "hostname"))
		assert.are.equal("20000", lab.shell(vm, "date +%s"):sub(1, 5))
	end)
end)
