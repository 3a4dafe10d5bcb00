local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local function blocks(path) return tonumber(scratch.run("stat -c %b " .. path)) end
local function digest(path) return scratch.run("sha256sum <" .. path) end

describe("a volume of a Linux guest #lab", function()
	it("is ext4 where the guest wants it, and goes into snapshots and on in clones of its own", function()
		local folder <close> = folders.new()
		local path = folder:join "data.img"
		do
			local vm <close> = assert(lab.image("busybox"):boot {
				memory_mib = 128, volumes = { { host = path, guest = "/srv/data", size_mib = 64 } },
			})
			assert.equal("/dev/vdb /srv/data ext4", lab.shell(vm, "grep -o '^/dev/vdb .* ext4' /proc/mounts"))
			lab.shell(vm, "echo flushed >/srv/data/one; sync /srv/data/one; echo cached >/srv/data/two")
			assert(vm:snapshot(folder:join "snapshot"))
			lab.shell(vm, "echo later >/srv/data/one; sync")
		end
		local before = digest(path)
		local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot", { verify = true }))
		local one <close> = assert(snapshot:restore())
		local two <close> = assert(snapshot:restore { transport = "worker" })
		for name, vm in pairs { one = one, two = two } do
			assert.equal("flushed\ncached", lab.shell(vm, "cat /srv/data/one /srv/data/two"))
			lab.shell(vm, ("echo %s >/srv/data/own; sync; echo 3 >/proc/sys/vm/drop_caches"):format(name))
		end
		for name, vm in pairs { one = one, two = two } do
			assert.equal("flushed\n" .. name, lab.shell(vm, "cat /srv/data/one /srv/data/own"))
		end
		assert(one:reset())
		assert.equal("one two", lab.shell(one, "cd /srv/data && ls -d o* t* | xargs"))
		assert.equal(before, digest(path))
	end)

	it("is given to a machine from a pool, kept on the host, and gone when the machine goes back", function()
		local folder <close> = folders.new()
		local path, other = folder:join "data.img", folder:join "other.img"
		local snapshot <close> = lab.snapshot { memory_mib = 128, volume_slots = 2 }
		local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 1 }))
		do
			local vm <close> = assert(pool:acquire {
				volumes = { { host = path, guest = "/data", size_mib = 64 }, { host = other, guest = "/other", size_mib = 32 } },
			})
			lab.shell(vm, "dd if=/dev/urandom of=/data/big bs=1M count=16 2>/dev/null; echo kept >/data/name; sync")
			assert.equal("/dev/vdc", lab.shell(vm, "grep ' /other ' /proc/mounts | cut -d' ' -f1"))
			-- What is deleted can be given back to the host.
			local full = blocks(path)
			assert.is_true(full * 512 > 16 << 20)
			lab.shell(vm, "rm /data/big; sync; fstrim /data")
			assert.is_true(blocks(path) < full - (15 << 20) // 512, blocks(path))
			assert(vm:command "sync")
		end
		do
			local vm <close> = assert(pool:acquire())
			assert.equal("0 0", lab.shell(vm, "cat /sys/block/vdb/size /sys/block/vdc/size | xargs"))
			assert.equal("gone", lab.shell(vm, "grep ' /data ' /proc/mounts || [ -e /data ] || echo gone"))
		end
		do
			local vm <close> = assert(pool:acquire { volumes = { { host = path, guest = "/data", size_mib = 96 } } })
			assert.equal("kept", lab.shell(vm, "cat /data/name"))
			assert.is_true(tonumber(lab.shell(vm, "df -m /data | tail -1 | awk '{print $2}'")) > 80)
			assert(vm:command "sync")
		end
		local vm <close> = assert(pool:acquire { volumes = { { host = path, guest = "/ro", readonly = true } } })
		assert.equal("kept", lab.shell(vm, "cat /ro/name"))
		local result = assert(vm:exec { "sh", "-c", "echo x >/ro/name" })
		assert.matches("Read%-only", result.stderr)
	end)

	it("is baked in with what it held, and its file is left alone", function()
		local folder <close> = folders.new()
		local path = folder:join "data.img"
		local function bake()
			return assert(lab.image("busybox"):bake {
				memory_mib = 128, volumes = { { host = path, guest = "/data", size_mib = 64 } },
				warmup = { "sh", "-c", "echo warm >/data/warm" },
			})
		end
		local first <close>, there = bake()
		assert.is_false(there)
		local before = digest(path)
		local again <close>, found = bake()
		assert.is_true(found)
		assert.equal(first:path(), again:path())
		local vm <close> = assert(again:restore())
		assert.equal("warm", lab.shell(vm, "cat /data/warm"))
		assert.equal(before, digest(path))
		scratch.run("touch " .. path)
		local other <close>, same = bake()
		assert.is_false(same)
		assert.not_equal(first:path(), other:path())
	end)
end)
