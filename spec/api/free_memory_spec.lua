-- What a restored Linux guest frees and reports as free: its host has it back, and nothing else minds it.
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local scheduler = require "supermachine.scheduler"
local sm = require "supermachine"

local MIB <const> = 1 << 20

local function given_back_mib(vm)
	for _, device in ipairs(assert(vm:devices())) do
		if device.kind == "balloon" then return device.bytes // MIB end
	end
end

describe("memory of its snapshot that a guest frees #lab", function()
	it("is in no diff snapshot, and a reset does not copy it but has it again", function()
		local folder <close> = folders.new()
		local snapshot <close> = lab.snapshot { memory_mib = 128,
			warmup = { "sh", "-c", "head -c 41943040 /dev/urandom >/dev/shm/file" } }
		local vm <close> = assert(snapshot:restore())
		local sum = lab.shell(vm, "md5sum </dev/shm/file && rm /dev/shm/file")
		local free_mib = tonumber(lab.shell(vm, "awk '/MemFree/ { print int($2 / 1024) }' /proc/meminfo"))
		-- The kernel reports large blocks only, some seconds later (mm/page_reporting.c).
		for _ = 1, 600 do
			if given_back_mib(vm) >= free_mib - 24 then break end
			scheduler.sleep(100)
		end
		local times = assert(vm:snapshot(folder:join "after", nil, { diff = true }))
		assert.is_true(times.ram_bytes < 10 * MIB, times.ram_bytes)
		do
			local after <close> = assert(sm.snapshot.open(folder:join "after"))
			local clone <close> = assert(after:restore())
			assert.are.equal("41943040", lab.shell(clone, "head -c 41943040 /dev/zero >/dev/shm/file && wc -c </dev/shm/file"))
		end
		local reset = assert(vm:reset())
		assert.is_true(reset.copied_bytes < 8 * MIB, reset.copied_bytes)
		assert.is_true(reset.dropped_bytes >= (free_mib - 24) * MIB, reset.dropped_bytes)
		assert.are.equal(sum, lab.shell(vm, "md5sum </dev/shm/file"))
	end)
end)
