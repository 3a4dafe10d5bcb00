-- Host folders in Linux guests.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local function fs_of(vm, index)
	for _, device in ipairs(assert(vm:devices())) do
		if device.kind == "fs" and device.index == index then return device.fs end
	end
end

-- The guest's program that has a file open and mapped (spec/fixtures/mounted.py).
local function ask(vm)
	return lab.shell(vm, "rm -f /run/out; touch /run/out.go; until cat /run/out 2>/dev/null; do sleep 0.1; done")
end

describe("mounts of a booted guest #lab", function()
	local source, static, mapped, vm
	setup(function()
		source, static, mapped = folders.new(), folders.new(), folders.new()
		scratch.write(source:join "data", "from the host\n")
		scratch.write(static:join "data", "read only\n")
		scratch.write(static:join "one.conf", "one = 1\n")
		vm = assert(lab.image("python"):boot { memory_mib = 256, vcpus = 2, mounts = {
			{ host = source.path, guest = "/src" },
			{ host = static.path, guest = "/deep/in/there", readonly = true, tag = "static" },
			{ host = static:join "one.conf", guest = "/etc/one/one.conf", readonly = true },
			scratch.is_root() and {
				host = mapped.path, guest = "/mapped", owners = { { guest = 0, host = 100000, count = 65536 } },
			} or nil,
		} })
	end)
	teardown(function()
		if vm then vm:close() end
		for _, folder in ipairs { source, static, mapped } do folder:close() end
	end)

	it("are where they should be", function()
		assert.are.equal("from the host\nread only\none = 1",
			lab.shell(vm, "cat /src/data /deep/in/there/data /etc/one/one.conf"))
		assert.are.equal("one.conf", lab.shell(vm, "ls /etc/one"))
		local mounts = lab.shell(vm, "grep virtiofs /proc/mounts")
		assert.matches("mount0 /src virtiofs rw,", mounts)
		assert.matches("static /deep/in/there virtiofs ro,", mounts)
		assert.matches("mount2 /etc/one/one.conf virtiofs ro,", mounts)
		assert.are.equal("", lab.shell(vm, "ls -d /run/supermachine.* 2>/dev/null || true"))
	end)

	it("show what the host does, and the host what the guest does, at once", function()
		for i = 1, 3 do
			scratch.write(source:join "edited", ("edit %d\n"):format(i))
			assert.are.equal("edit " .. i, lab.shell(vm, "cat /src/edited"))
			lab.shell(vm, ("echo from the guest %d >/src/mine"):format(i))
			assert.are.equal(("from the guest %d\n"):format(i), scratch.read(source:join "mine"))
		end
		os.rename(source:join "edited", source:join "renamed")
		assert.are.equal("gone", lab.shell(vm, "test -e /src/edited || echo gone"))
		assert.are.equal("edit 3", lab.shell(vm, "cat /src/renamed"))
		lab.shell(vm, "mkdir -p /src/a/b && mv /src/renamed /src/a/b/moved && ln -s b/moved /src/a/link && rm /src/mine")
		assert.are.equal("edit 3\n", scratch.read(source:join "a/b/moved"))
		assert.are.equal("edit 3", lab.shell(vm, "cat /src/a/link"))
	end)

	it("belong to the guest's root where nothing else is said, whoever makes them", function()
		scratch.run(("chmod 755 %s && mkdir -m 777 %s"):format(source.path, source:join "open"))
		lab.shell(vm, "echo 1 >/src/open/root")
		lab.shell(vm, "echo 1 >/src/open/app", { user = "app" })
		assert.are.equal("0:0 0:0", lab.shell(vm, "cd /src/open; echo $(stat -c %u:%g root app)"))
		local us = scratch.run "id -u"
		assert.are.equal(us .. "\n" .. us, scratch.run(("cd %s && stat -c %%u root app"):format(source:join "open")))
		assert.are.equal("no", lab.shell(vm, "chown app /src/open/app 2>/dev/null || echo no"))
		assert.are.equal("no", lab.shell(vm, "echo 2 2>/dev/null >/src/data || echo no", { user = "app" }))
		scratch.run("rm -r " .. source:join "open")
	end)

	it("belong to whom a mount's ranges say", function()
		if not scratch.is_root() then return pending "needs root, to give files away" end
		scratch.run(("chown 100000:100000 %s && chmod 777 %s && touch %s && chown 5:5 %s"):format(mapped.path, mapped.path,
			mapped:join "stranger", mapped:join "stranger"))
		lab.shell(vm, "echo 1 >/mapped/root")
		lab.shell(vm, "echo 1 >/mapped/app; chmod 600 /mapped/app", { user = "app" })
		assert.are.equal("0 0 1000 65534", lab.shell(vm, "cd /mapped; echo $(stat -c %u . root app stranger)"))
		assert.are.equal("100000\n101000", scratch.run(("cd %s && stat -c %%u root app"):format(mapped.path)))
		lab.shell(vm, "chown app /mapped/root")
		assert.are.equal("101000", scratch.run("stat -c %u " .. mapped:join "root"))
	end)

	it("are not written to where they are read-only", function()
		for _, script in ipairs {
			"echo x >/deep/in/there/new", "echo x >>/deep/in/there/data", "rm /deep/in/there/data",
			"echo x >>/etc/one/one.conf", "mount -o remount,rw /deep/in/there; echo x >/deep/in/there/new",
		} do
			local result = assert(vm:exec({ "sh", "-c", script }, { timeout_ms = 60000 }))
			assert.are_not.equal(0, result.code)
			assert.matches("Read%-only file system", result.stderr, nil, script)
		end
		assert.are.equal("read only\n", scratch.read(static:join "data"))
	end)

	it("are mapped: the guest's page is the host's", function()
		scratch.write(source:join "mapped", ("a"):rep(4 << 20))
		local program = [==[
import mmap, os, sys
with open("/src/mapped", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    print(m[0:1].decode(), m[3 << 20:(3 << 20) + 1].decode())
    m[100:105] = b"guest"
    disk = os.open("/dev/vda", os.O_RDONLY | os.O_DIRECT)
    print(os.preadv(disk, [memoryview(m)[1 << 20:(1 << 20) + 8192]], 0), m[(1 << 20) + 512:(1 << 20) + 520], flush=True)
    sys.stdin.readline()
]==]
		local process <close> = assert(vm:spawn({ "python3", "-c", program }, { timeout_ms = 120000 }))
		assert.are.equal("a a\n", assert(process:read "L"))
		assert.are.equal("8192 b'EFI PART'\n", process:read "L" or process:read("a", { stderr = true }))
		assert.is_true(fs_of(vm, 0).dax_bytes > 0)
		local content = scratch.read(source:join "mapped")
		assert.are.equal("guest", content:sub(101, 105))
		assert.are.equal("EFI PART", content:sub((1 << 20) + 513, (1 << 20) + 520))
		assert(process:write "\n")
		assert.are.equal(0, assert(process:wait { timeout_ms = 60000 }).code)
	end)

	it("take the guest's errors, and none of its own, when a mapped file is cut", function()
		scratch.write(source:join "cut", ("c"):rep(4 << 20))
		local program = [==[
import mmap, sys
with open("/src/cut", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    print(m[0:1].decode(), m[(4 << 20) - 1:].decode(), flush=True)
    sys.stdin.readline()
    print(m[(4 << 20) - 1:], m[0:1], flush=True)
]==]
		local process <close> = assert(vm:spawn({ "python3", "-c", program }, { timeout_ms = 120000 }))
		assert.are.equal("c c\n", assert(process:read "L"))
		assert(os.execute(("truncate -s 4096 '%s'"):format(source:join "cut")))
		assert(process:write "go\n")
		local result = assert(process:wait { timeout_ms = 60000 })
		-- Zeros, or an end by SIGBUS: that is up to what its kernel had looked up.
		assert.is_true(result.code == 0 or result.signal == 7, result.code)
		assert.are.equal("running", vm:ended() or "running")
		assert.are.equal("alive", lab.shell(vm, "echo alive"))
	end)

	it("serve many at once", function()
		local script = "for i in 1 2 3 4 5 6 7 8; do (dd if=/dev/zero of=/src/many$i bs=64k count=16 2>/dev/null; "
			.. "cat /src/many$i | wc -c) & done; wait"
		assert.are.equal(("1048576 "):rep(8), lab.shell(vm, script):gsub("\n", " ") .. " ")
		assert.are.equal(0, fs_of(vm, 0).hostile)
	end)
end)

describe("mounts in snapshots #lab", function()
	local source, path, store
	setup(function()
		source, store = folders.new(), folders.new()
		scratch.write(source:join "data", "first\n")
		assert(os.execute(("cp spec/fixtures/mounted.py '%s'"):format(source.path)))
		local vm <close> = assert(lab.image("python"):boot { memory_mib = 256, mount_slots = 1, mounts = {
			{ host = source.path, guest = "/src" },
		}, on_restore = { "sh", "-c", "ls /src >/run/hook; ls /late >>/run/hook; true" } })
		local process = assert(vm:spawn({ "python3", "/src/mounted.py", "/src/data", "/run/out" }, { keep = true }))
		assert.are.equal("ready\n", assert(process:read "L"))
		process:close()
		path = store:join "snapshot"
		assert(vm:snapshot(path))
	end)
	teardown(function()
		source:close()
		store:close()
	end)

	it("come back with their open files, and show what the host did meanwhile", function()
		local snapshot <close> = assert(sm.snapshot.open(path))
		for _, transport in ipairs { "direct", "worker" } do
			scratch.write(source:join "data", "first\n")
			local vm <close> = assert(snapshot:restore { transport = transport })
			assert.are.equal("first|first", ask(vm))
			local file = assert(io.open(source:join "data", "r+"))
			file:write "later\n"
			file:close()
			assert.are.equal("later|later", ask(vm))
			assert.are.equal("later", lab.shell(vm, "cat /src/data"))
			assert.matches("mounted.py", lab.shell(vm, "cat /run/hook"))
			-- And after a recycle, and another.
			for _ = 1, 2 do
				lab.shell(vm, "echo x >/src/new; exec 9</src/new; rm -f /run/hook")
				assert(vm:reset())
				assert.are.equal("later|later", ask(vm))
				assert.matches("mounted.py", lab.shell(vm, "cat /run/hook"))
			end
		end
	end)

	it("name a host path that is gone", function()
		local gone <close> = folders.new()
		local vm <close> = assert(lab.image("busybox"):boot { memory_mib = 128, mounts = {
			{ host = gone.path, guest = "/gone" },
		} })
		local at = store:join "gone"
		assert(vm:snapshot(at))
		assert(os.rename(gone.path, gone.path .. ".away"))
		local snapshot <close> = assert(sm.snapshot.open(at))
		local none, message, code = snapshot:restore()
		assert(os.rename(gone.path .. ".away", gone.path))
		assert.is_nil(none)
		assert.matches("mount /gone: host path " .. gone.path:gsub("%p", "%%%0") .. ": No such file", message)
		assert.are.equal("ENOENT", code)
	end)

	it("are bound to another folder, and fill slots that have nothing, before the hook", function()
		local other <close> = folders.new()
		local late <close> = folders.new()
		scratch.write(other:join "data", "other\n")
		scratch.write(other:join "only-here", "")
		scratch.write(late:join "data", "late\n")
		local snapshot <close> = assert(sm.snapshot.open(path))
		local vm <close> = assert(snapshot:restore { mounts = {
			{ host = other.path, guest = "/src" }, { host = late.path, guest = "/late", readonly = true },
		} })
		assert.are.equal("data\nonly-here\ndata", lab.shell(vm, "cat /run/hook"))
		assert.are.equal("other\nlate", lab.shell(vm, "cat /src/data /late/data"))
		assert.are.equal(late.path, vm:mounts()[2].host)
		local again = store:join "again"
		assert(vm:snapshot(again))
		local full <close> = assert(sm.snapshot.open(again))
		local clone <close> = assert(full:restore())
		assert.are.equal("other\nlate", lab.shell(clone, "cat /src/data /late/data"))
		-- What was put there since the restore goes with a reset, what the snapshot has stays.
		assert(vm:reset())
		assert.are.equal("no", lab.shell(vm, "test -e /late/data || echo no"))
		assert.are.equal(1, #vm:mounts())
		assert(clone:reset())
		assert.are.equal("late", lab.shell(clone, "cat /late/data"))
		local none, message, code = clone:mount { { host = late.path, guest = "/more" } }
		assert.is_nil(none)
		assert.matches("mount /more: fs: the machine has 2 slots, and something behind each", message)
		assert.are.equal("ENOSPC", code)
		none, message, code = snapshot:restore { mounts = { { host = late.path, guest = "/etc/passwd/x" } } }
		assert.is_nil(none)
		assert.matches("mount /etc/passwd/x: make folder /etc/passwd/x: Not a directory", message)
		assert.are.equal("ENOTDIR", code)
	end)

	it("are given with a pool's machine, and taken back", function()
		local late <close> = folders.new()
		scratch.write(late:join "data", "mine\n")
		local snapshot <close> = assert(sm.snapshot.open(path))
		local pool <close> = assert(sm.pool.new(snapshot, { min = 1, max = 1 }))
		for i = 1, 2 do
			local vm <close> = assert(pool:acquire {
				timeout_ms = 120000, mounts = { { host = late.path, guest = "/late/" .. i } },
			})
			assert.are.equal(tostring(i), lab.shell(vm, "ls /late"))
			assert.are.equal("mine", lab.shell(vm, ("cat /late/%d/data"):format(i)))
		end
		local vm <close> = assert(pool:acquire { timeout_ms = 120000 })
		assert.are.equal("no", lab.shell(vm, "test -e /late || echo no"))
		assert.is_nil(fs_of(vm, 1))
		assert.is_true(pool:stats().recycled >= 2)
	end)
end)

describe("a bake with mounts #lab", function()
	it("has one name for one folder and its options, and serves what is in it now", function()
		local source <close> = folders.new()
		scratch.write(source:join "data", "baked\n")
		local image = lab.image "busybox"
		local given = { memory_mib = 128, mounts = { { host = source.path, guest = "/src" } },
			warmup = { "sh", "-c", "cat /src/data >/run/seen" } }
		local snapshot <close> = assert(image:bake(given))
		scratch.write(source:join "data", "changed\n")
		local same <close>, there = assert(image:bake(given))
		assert.is_true(there)
		assert.are.equal(snapshot:path(), same:path())
		local vm <close> = assert(same:restore())
		assert.are.equal("baked\nchanged", lab.shell(vm, "cat /run/seen /src/data"))
	end)

	it("leaves nothing to be written by its clones", function()
		local target <close> = folders.new()
		local snapshot <close> = assert(lab.image("busybox"):bake { memory_mib = 128,
			mounts = { { host = target.path, guest = "/out", cache = "always", writeback = true } },
			warmup = { "sh", "-c", "echo warm >/out/written" } })
		assert.are.equal("warm\n", scratch.read(target:join "written"))
		os.remove(target:join "written")
		local vm <close> = assert(snapshot:restore())
		lab.shell(vm, "sync && rm -f /out/written && echo cold >/out/written && sync /out/written")
		assert.are.equal("cold\n", scratch.read(target:join "written"))
	end)
end)

describe("the commands' -v #lab", function()
	it("puts folders and files into what run, bake and exec make", function()
		local source <close> = folders.new()
		scratch.write(source:join "data", "for the guest\n")
		local function command(words)
			return scratch.run(("XDG_DATA_HOME=%s %s/supermachine %s 2>/dev/null"):format(scratch.quote(lab.store()), build.dir,
				words))
		end
		local name = lab.reference "busybox"
		assert.are.equal("for the guest\nfor the guest", command(("run --memory 128 -v %s:/src -v %s/data:/one:ro %s "
			.. "sh -c 'cat /src/data /one; echo back >/src/back; echo x >>/one 2>/dev/null || true'"):format(source.path,
			source.path, name)))
		assert.are.equal("back\n", scratch.read(source:join "back"))
		assert.are.equal("for the guest\n", scratch.read(source:join "data"))
		local path = command(("bake --memory 128 --mount-slots 1 -v %s:/src:ro %s"):format(source.path, name))
		local words = ("exec -v %s:/late %s sh -c 'echo $(cat /src/back /late/data)'"):format(source.path, path)
		assert.are.equal("back for the guest", command(words))
	end)
end)
