-- Machines with several vCPUs, captured whatever these are doing: each clone goes on with it, and answers.
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local paths = require "supermachine.paths"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

-- SUPERMACHINE_VCPUS="1 2 4 8" for all of them.
local counts = {}
for word in (os.getenv "SUPERMACHINE_VCPUS" or "4"):gmatch "%d+" do counts[#counts + 1] = math.tointeger(word) end
local restores <const> = 3

-- A line once all of it is under way, and then for ever.
local spinning = [[
import os
for cpu in sorted(os.sched_getaffinity(0)):
    if os.fork() == 0:
        os.sched_setaffinity(0, {cpu})
        while True:
            pass
print("on", flush=True)
os.wait()
]]
-- Threads that hand a lock to each other: each waits in futex(2) until the one before has woken it.
local futexes = [[
import os, threading
count = 2 * os.cpu_count()
turns = [threading.Semaphore(0) for _ in range(count)]
def run(i):
    while True:
        turns[i].acquire()
        turns[(i + 1) % count].release()
for i in range(count):
    threading.Thread(target=run, args=(i,), daemon=True).start()
for i in range(0, count, 2):
    turns[i].release()
print("on", flush=True)
threading.Event().wait()
]]
-- Address space that every processor has in use is unmapped, so each is interrupted to forget it; and threads are sent
-- from one processor to the next.
local interrupts = [[
import mmap, os, threading
cpus = sorted(os.sched_getaffinity(0))
def run(i):
    while True:
        os.sched_setaffinity(0, {cpus[i % len(cpus)]})
        with mmap.mmap(-1, 16384) as memory:
            memory[0] = memory[8192] = 1
        i += 1
for i in range(len(cpus) + 1):
    threading.Thread(target=run, args=(i,), daemon=True).start()
print("on", flush=True)
threading.Event().wait()
]]
local states = {
	{ name = "idle" },
	{ name = "spinning", program = spinning },
	{ name = "in a futex storm", program = futexes },
	{ name = "between interrupts of each other", program = interrupts },
}

-- A snapshot of the running machine `vm`, which goes on.
local function capture(vm, path)
	assert(vm:pause())
	assert(vm:snapshot(path))
	assert(vm:resume())
	return assert(sm.snapshot.open(path))
end

local function assert_answers(snapshot, vcpus)
	for i = 1, restores do
		local vm <close> = assert(snapshot:restore { transport = i == 2 and "worker" or "direct", timeout_ms = 120000 })
		assert.are.equal(tostring(vcpus), lab.output(vm, { "nproc" }, { timeout_ms = 120000 }), "restore " .. i)
	end
end

-- A machine of the image, before its agent is there.
local function begin_boot(image, vcpus)
	local kernel, disk = assert(paths.kernel()), {}
	for i, layer in ipairs(assert(image:rootfs())) do disk[i] = layer.path end
	local vm = assert(sm.vm.new {
		kernel = kernel, initrd = assert(paths.initramfs(paths.modules(kernel))), disks = { disk }, memory_mib = 128,
		vcpus = vcpus, cmdline = ("loglevel=7 supermachine.layers=%d"):format(#disk),
	})
	assert(vm:resume())
	return vm
end

local function await_line(vm, pattern)
	while not vm:console():find(pattern) do
		assert.is_nil(vm:ended())
		scheduler.sleep(1)
	end
end

-- There is no agent yet: asked until one answers.
local function exec_patiently(vm, argv)
	while true do
		local result, message, code = vm:exec(argv, { timeout_ms = 120000 })
		if result then return result end
		assert.is_true(code == "ECONNRESET" or code == "ECONNREFUSED", message)
		assert.is_nil(vm:ended())
		scheduler.sleep(20)
	end
end

for _, vcpus in ipairs(counts) do
	describe(("a machine of %d vCPUs #lab"):format(vcpus), function()
		it("captured idle, busy, in a futex storm and between interrupts goes on, thrice", function()
			local folder <close> = folders.new()
			local vm <close> = assert(lab.image("python"):boot { memory_mib = 192, vcpus = vcpus, timeout_ms = 120000 })
			for i, state in ipairs(states) do
				local process = state.program and assert(vm:spawn { "python3", "-c", state.program })
				if process then assert.are.equal("on", process:read("l", { timeout_ms = 120000 })) end
				local snapshot <close> = capture(vm, folder:join(tostring(i)))
				if process then
					assert(process:signal "KILL")
					process:close()
				end
				assert_answers(snapshot, vcpus)
			end
		end)

		it("captured half-booted boots on, thrice", function()
			local folder <close> = folders.new()
			for i, line in ipairs { "smp", "virtio" } do
				local vm = begin_boot(lab.image "busybox", vcpus)
				await_line(vm, line)
				local snapshot <close> = capture(vm, folder:join(tostring(i)))
				vm:close()
				for _ = 1, restores do
					local clone <close> = assert(snapshot:restore { paused = true })
					assert(clone:resume())
					assert.are.equal(vcpus .. "\n", exec_patiently(clone, { "nproc" }).stdout)
				end
			end
		end)
	end)
end
