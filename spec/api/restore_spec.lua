local lab = require "spec.support.lab"
local sm = require "supermachine"

describe("a baked image #lab", function()
	it("is baked once for the same inputs, and anew for others", function()
		local image = lab.image "busybox"
		local first <close>, there = assert(image:bake { memory_mib = 128 })
		local second <close>, again = assert(image:bake { memory_mib = 128 })
		assert.is_boolean(there)
		assert.is_true(again)
		assert.are.equal(first:path(), second:path())
		local other <close> = assert(image:bake { memory_mib = 160 })
		assert.are_not.equal(first:path(), other:path())
	end)

	it("holds what the warm-up did; a warm-up that fails fails the bake and leaves nothing", function()
		local image = lab.image "busybox"
		local snapshot <close> = assert(image:bake {
			memory_mib = 128, warmup = { "sh", "-c", "echo warm >/run/warm" },
		})
		local vm <close> = assert(snapshot:restore())
		assert.are.equal("warm", lab.shell(vm, "cat /run/warm"))
		local none, message, code = image:bake { memory_mib = 128, warmup = { "sh", "-c", "echo cold >&2; exit 3" } }
		assert.is_nil(none)
		assert.matches("warm%-up sh: ended with code 3: cold", message)
		assert.are.equal("ECHILD", code)
	end)
end)

describe("a restored guest #lab", function()
	-- In RAM only, drawn in the guest before the snapshot was taken.
	local function nonce_snapshot(options)
		options.warmup = { "sh", "-c", "head -c 16 /dev/urandom | od -An -tx1 >/dev/shm/nonce" }
		return assert(lab.image("busybox"):bake(options))
	end

	it("leaves its snapshot the pages that it touched until it replied", function()
		local path
		for transport, options in pairs { direct = { memory_mib = 128 }, worker = { memory_mib = 160 } } do
			local snapshot <close> = lab.snapshot(options)
			path = snapshot:path()
			os.remove(path .. "/working-set")
			local fresh = assert(sm.snapshot.open(path))
			local one <close> = assert(fresh:restore { transport = transport })
			fresh:close()
			assert.is_true(one:close() == nil)
			local again <close> = assert(sm.snapshot.open(path))
			local bytes = 0
			for _, extent in ipairs(assert(again:working_set())) do bytes = bytes + extent.bytes end
			assert.is_true(bytes > 1 << 18 and bytes < options.memory_mib << 20, bytes)
			local two <close> = assert(again:restore { transport = transport })
			assert.are.equal("on", lab.shell(two, "echo on"))
		end
	end)

	it("was not rebooted", function()
		local snapshot <close> = nonce_snapshot { memory_mib = 128 }
		local one <close> = assert(snapshot:restore())
		local two <close> = assert(snapshot:restore())
		local nonce = lab.shell(one, "cat /dev/shm/nonce")
		assert.matches("^[%x ]+$", nonce)
		assert.are.equal(nonce, lab.shell(two, "cat /dev/shm/nonce"))
	end)

	it("has random numbers and a clock of its own", function()
		local snapshot <close> = lab.snapshot()
		local seen = {}
		for _ = 1, 3 do
			local vm <close> = assert(snapshot:restore())
			local random = lab.shell(vm, "head -c 16 /dev/urandom | od -An -tx1")
			assert.is_nil(seen[random], "the same random bytes twice")
			seen[random] = true
			local before = os.time()
			local clock = tonumber(lab.shell(vm, "date +%s"))
			assert.is_true(clock >= before - 1 and clock <= os.time() + 1, ("%d is not now, %d"):format(clock, before))
		end
	end)

	-- SUPERMACHINE_CYCLES=100 for a soak.
	local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "10"))

	-- CLOCK_MONOTONIC in nanoseconds, read on one core; and that core's timer interrupts.
	local clock_functions = [[
		now() { taskset -c $1 awk '/^now at/ { print $3 }' /proc/timer_list; }
		ticks() { awk -v column=$(($1 + 2)) '/LOC:|arch_timer/ { print $column }' /proc/interrupts; }
	]]

	it(("sees time go on, and ticks, on every core, %d times"):format(cycles), function()
		local snapshot <close> = assert(lab.image("busybox"):bake {
			memory_mib = 128, vcpus = 4,
			warmup = { "sh", "-c", clock_functions .. "for cpu in 0 1 2 3; do now $cpu >/dev/shm/last; done" },
		})
		local script = clock_functions .. [[
			last=$(cat /dev/shm/last)
			for cpu in 0 1 2 3 0 1 2 3; do
				now=$(now $cpu)
				[ "$now" -ge "$last" ] || echo "core $cpu: $last, then $now"
				last=$now
			done
			for cpu in 0 1 2 3; do
				before=$(ticks $cpu)
				until [ "$(taskset -c $cpu true; ticks $cpu)" -gt "$before" ]; do :; done
			done]]
		for i = 1, cycles do
			local vm <close> = assert(snapshot:restore { transport = i % 2 == 0 and "worker" or "direct" })
			assert.are.equal("", lab.shell(vm, script), "cycle " .. i)
		end
	end)

	it("leaves a crash in one machine to that machine", function()
		local snapshot <close> = lab.snapshot()
		local doomed <close> = assert(snapshot:restore())
		local other <close> = assert(snapshot:restore { transport = "worker" })
		local process <close> = assert(doomed:spawn { "poweroff", "-f" })
		assert.are.equal("poweroff", (doomed:wait { timeout_ms = 60000 }))
		assert.is_truthy(process)
		assert.are.equal("alive", lab.shell(other, "echo alive"))
		local result, message, code = doomed:exec { "true" }
		assert.is_nil(result)
		assert.is_truthy(message)
		assert.is_truthy(code)
	end)

	it(("answers an exec, %d times in a row, with four vCPUs"):format(cycles), function()
		local snapshot <close> = lab.snapshot { memory_mib = 128, vcpus = 4 }
		for i = 1, cycles do
			local vm <close> = assert(snapshot:restore { transport = i % 2 == 0 and "worker" or "direct" })
			assert.are.equal(tostring(i), lab.output(vm, { "echo", tostring(i) }))
		end
	end)
end)

describe("a pool of guests #lab", function()
	it("answers from four machines at once, each with its own memory", function()
		local snapshot <close> = lab.snapshot()
		local pool <close> = assert(sm.pool.new(snapshot, { min = 4, max = 4 }))
		local answers = {}
		sm.run(function()
			for i = 1, 4 do
				sm.go(function()
					local vm <close> = assert(pool:acquire { timeout_ms = 60000 })
					assert.are.equal("", lab.shell(vm, "ls /dev/shm"))
					lab.shell(vm, "echo " .. i .. " >/dev/shm/mine")
					answers[i] = lab.shell(vm, "cat /dev/shm/mine")
				end)
			end
		end)
		assert.are.same({ "1", "2", "3", "4" }, answers)
		assert.are.equal(0, pool:stats().in_use)
		-- What a guest wrote is gone with its machine.
		local vm <close> = assert(pool:acquire { timeout_ms = 60000 })
		assert.are.equal("", lab.shell(vm, "ls /dev/shm"))
	end)
end)

describe("Debian's own kernel #lab", function()
	it("boots, with its modules in the initramfs, and runs a process", function()
		local build = require "spec.support.build"
		local vm <close> = assert(lab.image("busybox"):boot {
			memory_mib = 256, kernel = build.dir .. "/debian-kernel/vmlinuz", timeout_ms = 180000,
		})
		assert.matches("cloud%-" .. lab.image("busybox"):platform():match "/(%w+)", lab.output(vm, { "uname", "-r" }))
		assert.are.equal("ok", lab.output(vm, { "sh", "/etc/supermachine/check" }))
	end)
end)

describe("a busy guest #lab", function()
	it("can be closed at any moment while disk and sockets are saturated", function()
		local snapshot <close> = lab.snapshot { memory_mib = 128, vcpus = 2 }
		for i = 1, 6 do
			local vm = assert(snapshot:restore { transport = i % 3 == 0 and "worker" or "direct" })
			local disk = assert(vm:spawn { "sh", "-c", [[while :; do
				dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null
				echo 1 >/proc/sys/vm/drop_caches
			done]] })
			local out = assert(vm:spawn({ "cat", "/dev/zero" }, { max_output_bytes = 1 << 20 }))
			local both = assert(vm:spawn({ "cat" }, { max_output_bytes = 1 << 20 }))
			for _ = 1, i do
				assert(out:read(nil, { timeout_ms = 60000 }))
				assert(both:write(("x"):rep(4096), { timeout_ms = 60000 }))
			end
			vm:close()
			-- What is left of the connections ends; nothing hangs and nothing is torn down twice.
			local result, _, code = both:wait { timeout_ms = 20000 }
			assert.is_nil(result)
			assert.are.equal("ECONNRESET", code)
			for _, process in ipairs { disk, out, both } do process:close() end
		end
	end)
end)
