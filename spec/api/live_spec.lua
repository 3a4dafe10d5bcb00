-- Snapshots of Linux guests that are busy with memory, disk and sockets, and stay so.
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local sm = require "supermachine"

-- Compares what it has in memory with a copy of it, and the disk with what it read before; a word in `bad` if they
-- differ.
local checker <const> = [[
	cd /dev/shm
	first=$(md5sum </bin/busybox)
	while :; do
		head -c 200000 /dev/urandom >one
		cp one two
		cmp one two || echo memory >>bad
		[ "$(md5sum </bin/busybox)" = "$first" ] || echo disk >>bad
		echo 1 >/proc/sys/vm/drop_caches
		echo round >>rounds
	done]]

-- It goes on for a while, and nothing is bad.
local function sound(vm)
	assert.are.equal("", lab.shell(vm, [[
		cd /dev/shm
		wanted=$(($(wc -l <rounds) + 3))
		until [ $(wc -l <rounds) -ge $wanted ]; do usleep 10000; done
		cat bad 2>/dev/null || true]]))
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a busy guest's live snapshot (" .. transport .. ") #lab", function()
		it("is sound, and so is the guest", function()
			local folder <close> = folders.new()
			local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128, vcpus = 2, transport = transport })
			assert(vm:spawn({ "sh", "-c", checker }, { keep = true, stdin = false })):close()
			local noise <close> = assert(vm:spawn({ "cat", "/dev/zero" }, { max_output_bytes = 1 << 20 }))
			for i = 1, 2 do
				assert(noise:read(nil, { timeout_ms = 60000 }))
				local path = folder:join("live" .. i)
				local times = assert(vm:snapshot(path))
				print(("live snapshot (%s): %d rounds, %.1f MiB written for %.1f, stood still for %.1f of %.1f ms"):format(
					transport, times.rounds, times.written_bytes / (1 << 20), times.ram_bytes / (1 << 20),
					times.pause_us / 1000, times.capture_us / 1000))
				assert.is_true(times.rounds >= 2)
				local snapshot <close> = assert(sm.snapshot.open(path, { verify = true }))
				local clone <close> = assert(snapshot:restore { transport = transport })
				sound(clone)
			end
			sound(vm)
		end)
	end)
end
