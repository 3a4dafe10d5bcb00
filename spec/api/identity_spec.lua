-- What a clone has to itself, and what it is given.
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local lab = require "spec.support.lab"
local sm = require "supermachine"

local UUID <const> = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"

-- What must not be the same twice, by what it is.
local own = {
	["/dev/urandom"] = "head -c 16 /dev/urandom | od -An -tx1",
	["/dev/random"] = "head -c 16 /dev/random | od -An -tx1",
	uuid = "cat /proc/sys/kernel/random/uuid",
	boot_id = "cat /proc/sys/kernel/random/boot_id",
	id = "cat /run/supermachine/id",
	["machine-id"] = "cat /etc/machine-id",
}

local function identity(vm)
	local script = {}
	for _, command in pairs(own) do script[#script + 1] = command end
	local lines, seen = lab.shell(vm, table.concat(script, "\n")):gmatch "[^\n]+", {}
	for name in pairs(own) do seen[name] = lines() end
	assert.are.equal(vm:id(), seen.id)
	assert.matches(UUID, seen.id)
	assert.matches(UUID, seen.boot_id)
	assert.are.equal((seen.id:gsub("%-", "")), seen["machine-id"])
	return seen
end

local function assert_differ(one, two)
	for name in pairs(own) do assert.are_not.equal(one[name], two[name], name) end
end

describe("a clone #lab", function()
	-- Everything that is the clones' own has been drawn before.
	local prepare = "echo uninitialized >/etc/machine-id; cat /proc/sys/kernel/random/boot_id; head -c 1 /dev/urandom"

	local function snapshot(hook)
		return assert(lab.image("busybox"):bake {
			memory_mib = 128, warmup = { "sh", "-c", prepare }, on_restore = hook and { "sh", "-c", hook },
		})
	end

	it("is not the others, nor what it was before a reset; nor is a clone of a clone", function()
		local source <close> = snapshot()
		local one <close> = assert(source:restore())
		local two <close> = assert(source:restore { transport = "worker" })
		local before = identity(one)
		assert_differ(before, identity(two))
		assert.are.equal("33", lab.shell(one, "wc -c </etc/machine-id"))
		assert(one:reset())
		assert_differ(before, identity(one))

		local folder <close> = folders.new()
		before = identity(one)
		assert(one:pause())
		assert(one:snapshot(folder:join "again"))
		local again <close> = assert(sm.snapshot.open(folder:join "again"))
		local three <close> = assert(again:restore())
		assert_differ(before, identity(three))
	end)

	it("differs in getrandom(2), and in the time: now, and on from the snapshot's", function()
		local image = lab.image "python"
		local source <close> = assert(image:bake {
			memory_mib = 192, warmup = { "python3", "-c",
				"import time, os; os.getrandom(16); open('/run/last', 'w').write(str(time.monotonic_ns()))" },
		})
		local seen = {}
		for _ = 1, 2 do
			local vm <close> = assert(source:restore())
			local before = os.time()
			local out = lab.output(vm, { "python3", "-c",
				"import time, os; last = int(open('/run/last').read()); " ..
				"print(os.getrandom(16).hex(), time.monotonic_ns() >= last, int(time.time()))" })
			local random, goes_on, clock = out:match "^(%x+) (%a+) (%d+)$"
			assert.is_nil(seen[random])
			seen[random] = true
			assert.are.equal("True", goes_on)
			clock = tonumber(clock)
			assert.is_true(clock >= before - 1 and clock <= os.time() + 1, ("%d is not now, %d"):format(clock, before))
		end
	end)

	it("gets no machine-id where there is none", function()
		local source <close> = lab.snapshot()
		local vm <close> = assert(source:restore())
		assert.are.equal("none", lab.shell(vm, "ls /etc/machine-id 2>/dev/null || echo none"))
	end)

	it("has the host name, environment and secrets that it is given, and only they see them", function()
		local source <close> = lab.snapshot()
		local value = "se\0cret\n"
		local vm <close> = assert(source:restore {
			hostname = "one-1.example", env = { WHO = "one", GREETING = "mine" },
			secrets = { ["/run/secrets/x"] = value, ["/srv/secrets/deep/y"] = "" },
		})
		assert.are.equal("one-1.example one mine", lab.shell(vm, "echo $(hostname) $WHO $GREETING"))
		assert.are.equal("two", lab.shell(vm, "echo $WHO", { env = { WHO = "two" } }))
		local content, info = assert(vm:read_file "/run/secrets/x")
		assert.are.equal(value, content)
		assert.are.same({ 256, 0, 0 }, { info.mode, info.uid, info.gid })
		assert.are.equal("tmpfs tmpfs", lab.shell(vm, "echo $(stat -f -c %T /run/secrets/x /srv/secrets/deep/y)"))
		-- Not for a snapshot.
		assert(vm:pause())
		assert.are.equal("EPERM", select(3, vm:snapshot "/nonexistent/never"))
		assert(vm:reset())
		assert.are.equal("supermachine one none",
			lab.shell(vm, "echo $(hostname) $WHO $(cat /run/secrets/x 2>/dev/null || echo none)"))

		local none, message, code = source:restore { secrets = { ["/etc/x"] = "1" } }
		assert.are.same({ nil, "ENOTEMPTY" }, { none, code })
		assert.matches("folder /etc: not in memory", message, 1, true)
	end)

	it("runs on_restore with its identity, before anybody gets it", function()
		local source <close> = snapshot "echo $SUPERMACHINE_ID $GREETING $(cat /run/secrets/x 2>&1) >/run/hook"
		local vm <close> = assert(source:restore { secrets = { ["/run/secrets/x"] = "given" } })
		local greeting = lab.shell(vm, "echo $GREETING")
		assert.are.equal(vm:id() .. " " .. greeting .. " given", lab.shell(vm, "cat /run/hook"))
		assert(vm:reset())
		assert.matches("^" .. vm:id():gsub("%-", "%%-") .. " .*No such file", lab.shell(vm, "cat /run/hook"))
	end)

	it("is refused when any part of its identity fails, by name", function()
		local source <close> = assert(lab.image("busybox"):bake { memory_mib = 128, warmup = { "sh", "-c",
			"echo >/etc/machine-id; mount -o bind /etc/machine-id /etc/machine-id; " ..
			"mount -o bind,remount,ro /etc/machine-id" } })
		local vm, message, code = source:restore()
		assert.are.same({ nil, "identity: write /etc/machine-id: Read-only file system", "EROFS" },
			{ vm, message, code })
	end)

	it("is refused when its on_restore fails, or does not end", function()
		local failing <close> = snapshot "echo what a pity >&2; exit 3"
		local vm, message, code = failing:restore()
		assert.are.same({ nil, "identity: on_restore sh: ended with code 3: what a pity ", "ECHILD" }, { vm, message, code })
		local pool <close> = assert(sm.pool.new(failing, { min = 1, max = 1 }))
		vm, message, code = pool:acquire { timeout_ms = 120000 }
		assert.are.same({ nil, "identity: on_restore sh: ended with code 3: what a pity ", "ECHILD" }, { vm, message, code })
		local endless <close> = snapshot "exec sleep 1000"
		vm, message, code = endless:restore { timeout_ms = 3000 }
		assert.are.same({ nil, "identity: on_restore sh: its end: no answer in time", "ETIMEDOUT" }, { vm, message, code })
	end)

	it("of a pool leaves nothing of its user to the next one", function()
		local source <close> = snapshot "cat /proc/sys/kernel/random/uuid >/run/hook"
		local pool <close> = assert(sm.pool.new(source, { min = 1, max = 1 }))
		local before, hook
		do
			local vm <close> = assert(pool:acquire {
				timeout_ms = 120000, hostname = "first", env = { WHO = "first" },
				secrets = { ["/run/secrets/x"] = "the first one's secret" },
			})
			assert.are.equal("first first the first one's secret",
				lab.shell(vm, "echo $(hostname) $WHO $(cat /run/secrets/x)"))
			before, hook = identity(vm), lab.shell(vm, "cat /run/hook")
		end
		local vm <close> = assert(pool:acquire { timeout_ms = 120000 })
		assert.are.equal(1, pool:stats().recycled)
		assert_differ(before, identity(vm))
		assert.are_not.equal(hook, lab.shell(vm, "cat /run/hook"))
		assert.are.equal("supermachine none",
			lab.shell(vm, "echo $(hostname) $WHO $(cat /run/secrets/x 2>/dev/null || echo none)"))
	end)
end)

describe("a machine without the agent #kvm", function()
	it("has an ID, and cannot be told anything", function()
		local folder <close> = folders.new()
		local kernel = guest.write(folder:join "kernel", guest.loop(guest.print "x"))
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16 })
		assert.is_nil(vm:id())
		assert(vm:snapshot(folder:join "snapshot"))
		local source <close> = assert(sm.snapshot.open(folder:join "snapshot"))
		local one <close> = assert(source:restore())
		local id = one:id()
		assert.matches(UUID, id)
		assert(one:reset())
		assert.matches(UUID, one:id())
		assert.are_not.equal(id, one:id())
		local paused <close> = assert(source:restore { paused = true })
		assert.is_nil(paused:id())

		local pool <close> = assert(sm.pool.new(source, { max = 1 }))
		for _, wish in ipairs { { hostname = "x" }, { secrets = { ["/x"] = "y" } } } do
			assert.are.equal("EOPNOTSUPP", select(3, source:restore(wish)))
			assert.are.equal("EOPNOTSUPP", select(3, pool:acquire(wish)))
			wish.paused = true
			assert.has_error(function() source:restore(wish) end)
		end
		local trusting <close> = assert(sm.pool.new(source, { max = 1, reset = "never" }))
		assert.has_error(function() trusting:acquire { secrets = {} } end)
		assert.has_error(function() trusting:acquire { env = { ["A=B"] = "x" } } end)
		assert.has_error(function() trusting:acquire { env = { A = 1 } } end)
	end)
end)
