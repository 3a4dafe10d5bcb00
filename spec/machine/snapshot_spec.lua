local build = require "spec.support.build"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

-- Draws a nonce once, at boot, into RAM; then prints it again and again.
local nonce_guest = guest.print "boot" .. guest.counter() .. guest.store_word(guest.scratch)
	.. guest.loop(guest.load(guest.scratch) .. guest.print_word())

-- Read the console until it has at least `bytes` bytes.
local function read_console(vm, bytes)
	local text, cursor = "", 0
	while #text < bytes do
		local chunk
		chunk, cursor = assert(vm:console_from(cursor))
		text = text .. chunk
	end
	return text
end

local function saved(folder, name, transport)
	local vm <close> = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", nonce_guest), memory_mib = 32, vcpus = 2, transport = transport,
	})
	assert(vm:resume())
	local console = read_console(vm, 12)
	assert.are.equal("boot", console:sub(1, 4))
	assert(vm:pause())
	local path = folder:join(name)
	local times = assert(vm:snapshot(path, { colour = "blue" }))
	return path, console:sub(5, 8), times
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a snapshot (" .. transport .. ") #kvm", function()
		it("restores RAM and goes on where the machine stood", function()
			local folder <close> = folders.new()
			local path, nonce, times = saved(folder, "snapshot", transport)
			assert.is_true(times.ram_bytes > 0 and times.ram_bytes < 4 << 20)
			local snapshot <close> = assert(sm.snapshot.open(path))
			assert.are.same({ colour = "blue" }, snapshot:metadata())
			assert.are.equal(2, snapshot:plan().vcpus)
			for _ = 1, 3 do
				local vm <close> = assert(snapshot:restore { transport = transport })
				local console = read_console(vm, 16)
				assert.is_nil(console:find("boot", 1, true))
				assert.is_truthy(console:find(nonce, 1, true))
			end
		end)

		it("says where the time of a restore went, stage by stage", function()
			local folder <close> = folders.new()
			local snapshot <close> = assert(sm.snapshot.open((saved(folder, "snapshot", transport))))
			local vm <close> = assert(snapshot:restore { transport = transport, paused = true })
			local times, sum = assert(vm:timings()), 0
			for _, stage in ipairs { "map", "vm", "memslot", "irqchip", "vcpus", "devices" } do
				assert.is_true(times[stage .. "_us"] > 0, stage)
				sum = sum + times[stage .. "_us"]
			end
			assert.is_true(sum <= times.total_us)
			assert.are.same({ 0, 0 }, { times.identity_us, times.first_run_us })
			local other <close> = assert(snapshot:restore { transport = transport })
			read_console(other, 4)
			times = other:timings()
			assert.is_true(times.identity_us > 0 and times.first_run_us > 0)
			assert.is_truthy(other:reset { paused = true })
			assert.are.equal(0, other:timings().first_run_us)
		end)
	end)
end

describe("a snapshot #kvm", function()
	it("can be taken of a restored machine", function()
		local folder <close> = folders.new()
		local path, nonce = saved(folder, "first")
		local first <close> = assert(sm.snapshot.open(path))
		local vm <close> = assert(first:restore { paused = true })
		assert(vm:snapshot(folder:join "second"))
		local second <close> = assert(sm.snapshot.open(folder:join "second", { verify = true }))
		local again <close> = assert(second:restore())
		assert.is_truthy(read_console(again, 16):find(nonce, 1, true))
	end)

	it("never replaces what is there", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local snapshot <close> = assert(sm.snapshot.open(path))
		local vm <close> = assert(snapshot:restore { paused = true })
		local times, _, code = vm:snapshot(path)
		assert.is_nil(times)
		assert.are.equal("EEXIST", code)
		assert.is_true(sm.snapshot.open(path, { verify = true }) ~= nil)
	end)

	it("is refused when a byte of any file was changed or is missing", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local function broken(name, change, pattern)
			local file = path .. "/" .. name
			local sound = scratch.read(file)
			scratch.run("chmod u+w " .. file)
			scratch.write(file, change(sound))
			local snapshot, message, code = sm.snapshot.open(path)
			assert.is_nil(snapshot, name)
			assert.are.equal("EBADMSG", code, message)
			assert.matches(pattern, message)
			scratch.write(file, sound)
		end
		local function flip(at)
			return function(sound)
				return sound:sub(1, at - 1) .. string.char(sound:byte(at) ~ 1) .. sound:sub(at + 1)
			end
		end
		local function cut(sound) return sound:sub(1, -2) end
		broken("meta", cut, "meta")
		broken("meta", flip(40), "meta")
		broken("state", cut, "state: .*truncated")
		broken("state", flip(200), "state: sha256")
		broken("ram", cut, "ram: .*truncated")
		broken("ram", flip(guest.entry - guest.ram_base + 1), "ram: sha256")
		-- Whole again, though every stamp differs.
		local snapshot <close> = assert(sm.snapshot.open(path))
		local vm <close> = assert(snapshot:restore())
		assert.is_truthy(vm)
	end)

	it("is kept in memory when sealed, whatever happens to its files", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local plain <close> = assert(sm.snapshot.open(path))
		local sealed <close> = assert(sm.snapshot.open(path, { sealed = true }))
		scratch.run(("chmod u+w %s/ram %s/state && truncate -s 0 %s/ram %s/state"):gsub("%%s", path))
		assert.is_nil((plain:restore { paused = true }))
		for _, transport in ipairs { "direct", "worker" } do
			local vm <close> = assert(sealed:restore { transport = transport })
			local text = ""
			while #text < 4 do text = text .. assert(vm:console()) end
			assert(vm:reset { paused = true })
		end
		local none, message, code = sm.snapshot.open(path, { sealed = true })
		assert.is_nil(none)
		assert.are.equal("EBADMSG", code)
		assert.matches("ram: ", message)
	end)

	it("leaves nothing on a full disk", function()
		if not scratch.is_root() then return pending "needs root, to mount a small file system" end
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local snapshot <close> = assert(sm.snapshot.open(path))
		local vm <close> = assert(snapshot:restore { paused = true })
		local small = folder:join "small"
		scratch.run(("mkdir %s && mount -t tmpfs -o size=16k none %s"):format(small, small))
		local times, message, code = vm:snapshot(small .. "/snapshot")
		local left = scratch.files(small)
		scratch.run("umount " .. small)
		assert.is_nil(times)
		assert.are.equal("ENOSPC", code)
		assert.is_truthy(message:find(small .. "/snapshot", 1, true), message)
		assert.are.same({}, left)
	end)

	it("of another version is refused by name", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local meta = scratch.read(path .. "/meta")
		scratch.write(path .. "/meta", meta:sub(1, 4) .. "\99\0" .. meta:sub(7))
		local snapshot, message, code = sm.snapshot.open(path)
		assert.is_nil(snapshot)
		assert.matches("has version 99, this build reads 3", message)
		assert.are.equal("EBADMSG", code)
	end)

	it("with feature flags of another build is refused with both", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local meta = scratch.read(path .. "/meta")
		scratch.write(path .. "/meta", meta:sub(1, 6) .. "\5\0" .. meta:sub(9))
		local snapshot, message, code = sm.snapshot.open(path)
		assert.is_nil(snapshot)
		assert.matches("snapshot: record 'SNAP' has feature flags 0x5, this build knows none", message)
		assert.are.equal("EBADMSG", code)
	end)

	it("made with another kernel than the one that is named is refused with both", function()
		local folder <close> = folders.new()
		local kernel, other = folder:join "kernel", folder:join "other"
		local digest = core.sha256_file(guest.write(kernel, guest.spin()))
		local other_digest = core.sha256_file(guest.write(other, guest.halt()))
		do
			local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16 })
			assert(vm:snapshot(folder:join "one", { kernel = "sha256:" .. digest }))
			assert(vm:snapshot(folder:join "silent"))
		end
		assert(sm.snapshot.open(folder:join "one", { kernel = kernel })):close()
		for name, words in pairs { one = "sha256:" .. digest, silent = "unknown" } do
			local snapshot, message, code = sm.snapshot.open(folder:join(name), { kernel = other })
			assert.are.same({ nil, "EBADMSG" }, { snapshot, code })
			assert.matches(("made with kernel %s, and %s is sha256:%s"):format(words, other, other_digest), message, 1, true)
		end
		assert.are.equal("ENOENT", select(3, sm.snapshot.open(folder:join "one", { kernel = folder:join "none" })))
	end)

	it("of version 1, without host and parent, and 2, without mounts and volumes, is read", function()
		local folder <close> = folders.new()
		local path, nonce = saved(folder, "snapshot")
		local own = records.parse(scratch.read(path .. "/meta"))[1].payload
		local host = core.json_decode(scratch.read(path .. "/manifest.json")).host
		local first, last = own:find(string.pack("<s4s4", host, ""), 1, true)
		for version, payload in pairs { own:sub(1, first - 1), own:sub(1, last) } do
			scratch.write(path .. "/meta", core.record_write("SNAP", version, payload))
			local snapshot <close> = assert(sm.snapshot.open(path))
			local vm <close> = assert(snapshot:restore())
			assert.is_truthy(read_console(vm, 16):find(nonce, 1, true))
		end
	end)

	it("says what it is in manifest.json, which nothing needs, and is kept from being written to", function()
		local folder <close> = folders.new()
		local path, _, times = saved(folder, "snapshot")
		local manifest = core.json_decode(scratch.read(path .. "/manifest.json"))
		assert.are.same({ colour = "blue" }, manifest.metadata)
		assert.are.same({ guest.arch, 2, 32 }, { manifest.plan.arch, manifest.plan.vcpus, manifest.plan.memory_mib })
		assert.are.same({ 32 << 20, times.ram_bytes }, { manifest.ram.bytes, manifest.ram.data_bytes })
		assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", manifest.created)
		assert.matches(scratch.run "uname -r", manifest.host, 1, true)
		assert.is_nil(manifest.parent)
		assert.are.equal("400 ram\n400 state", scratch.run("cd " .. path .. " && stat -c '%a %n' ram state"))
		local shown = scratch.run(build.dir .. "/supermachine inspect " .. path)
		assert.matches("vCPUs +2\n", shown)
		assert.are.same(manifest,
			core.json_decode(scratch.run(build.dir .. "/supermachine inspect --json " .. path)))
		scratch.write(path .. "/manifest.json", "{")
		assert(sm.snapshot.open(path)):close()
	end)

	it("of another architecture is refused by name, with both hosts", function()
		local folder <close> = folders.new()
		local path = saved(folder, "snapshot")
		local other = guest.arch == "x86_64" and "aarch64" or "x86_64"
		local plan = core.plan_encode { arch = other, memory_mib = 32, vcpus = 2 }
		scratch.write(path .. "/meta", records.changed(scratch.read(path .. "/meta"), "SNAP", function(payload)
			local own = records.header + string.unpack("<I4", payload, 9)
			local host = core.json_decode(scratch.read(path .. "/manifest.json")).host
			local first, last = payload:find(string.pack("<s4s4", host, ""), 1, true)
			return plan .. payload:sub(own + 1, first - 1) .. string.pack("<s4s4", "Some CPU, Other 1.0", "")
				.. payload:sub(last + 1)
		end))
		local snapshot <close> = assert(sm.snapshot.open(path))
		for _, transport in ipairs { "direct", "worker" } do
			local vm, message, code = snapshot:restore { transport = transport }
			assert.are.same({ nil, "ENOEXEC" }, { vm, code })
			assert.matches(("the machine is %s, this host is %s"):format(other, guest.arch), message)
			assert.matches("made on Some CPU, Other 1.0, this is .*, Linux ", message)
		end
	end)
end)

describe("opening a snapshot", function()
	it("names what is missing", function()
		local snapshot, message, code = sm.snapshot.open "/nonexistent/snapshot"
		assert.is_nil(snapshot)
		assert.matches("/nonexistent/snapshot", message)
		assert.are.equal("ENOENT", code)
	end)
end)
