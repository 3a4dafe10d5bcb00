local build = require "spec.support.build"
local core = require "supermachine.core"
local disk = require "spec.support.disk_guest"
local folders = require "spec.support.folder"
local guest = require "spec.support.microguest"
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const>, SECTOR <const> = 1 << 20, 512
local memory_mib <const> = 32
local ALL <const> = 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14 -- flushes, cache mode, discards, zeros

-- The console from `cursor` on, once it has so many bytes more; and where it ends.
local function console(vm, bytes, cursor)
	local text
	cursor = cursor or 0
	local pieces, have = {}, 0
	while have < bytes do
		local reason, detail = vm:ended()
		assert(not reason, detail)
		text, cursor = assert(vm:console_from(cursor))
		pieces[#pieces + 1], have = text, have + #text
	end
	return table.concat(pieces), cursor
end

local function word(text, at) return (string.unpack("<I4", text, at)) end
local function words(value, count) return string.pack("<I4", value):rep(count) end

-- Writes the word to sector 0 and flushes; "r".  Told 1: sector 9's first word; writes a word of its own to it; that
-- again.  Told 2: the words of sectors 9 and 0.
local FIRST <const> = 0x41424344
local function story()
	local it = disk.new({ memory_mib = memory_mib, volumes = 1 }, 0)
	local function show(sector) return it:read(sector, it.data, SECTOR) .. guest.load(it.data) .. guest.print_word() end
	local code = { it:start(), guest.store(it.data, FIRST) }
	code[#code + 1] = it:write(0, it.data, SECTOR) .. it:flush() .. guest.print "r" .. it:await(1) .. show(9)
	code[#code + 1] = guest.counter() .. guest.store_word(it.data + 4096) .. it:write(9, it.data + 4096, SECTOR)
	code[#code + 1] = show(9) .. it:await(2) .. show(9) .. show(0) .. guest.idle()
	return table.concat(code)
end

local function booted(folder, transport, options)
	options = options or {}
	options.host, options.format = options.host or folder:join "data.img", false
	if not options.size_mib and not options.readonly then options.size_mib = 4 end
	local vm = assert(sm.vm.new {
		kernel = guest.write(folder:join "kernel", story()), memory_mib = memory_mib, transport = transport,
		volumes = { options },
	})
	assert(vm:resume())
	assert.equal("r", (console(vm, 1)))
	return vm, options.host
end

describe("a snapshot with a volume #kvm", function()
	it("whose volume was changed, or whose meta names what no machine has, is refused", function()
		local folder <close> = folders.new()
		do
			local vm <close> = booted(folder, "direct")
			assert(vm:snapshot(folder:join "one"))
		end
		local path, volume = folder:join "one", folder:join "one/volume-0"
		local content, meta = scratch.read(volume), scratch.read(path .. "/meta")
		local manifest = core.json_decode(scratch.read(path .. "/manifest.json"))
		assert.same({ #content, 64 }, { manifest["volume-0"].bytes, #manifest["volume-0"].sha256 })
		assert.equal("400", scratch.run("stat -c %a " .. volume))
		assert.matches("volume%-0 +4%.0 MiB", scratch.run(build.dir .. "/supermachine inspect " .. path))

		local function refused(why)
			local snapshot, message, code = sm.snapshot.open(path)
			assert.is_nil(snapshot)
			assert.equal("EBADMSG", code)
			assert.is_truthy(message:find(why, 1, true), message)
		end
		scratch.run("chmod 600 " .. volume)
		scratch.write(volume, content:sub(1, 1 << 20) .. "x" .. content:sub((1 << 20) + 2))
		refused "volume-0: sha256 is"
		scratch.write(volume, content:sub(1, -513))
		refused "volume-0: 4193792 bytes, expected 4194304"
		scratch.write(volume, content)
		assert(sm.snapshot.open(path)):close()

		-- u32 count, then u32 slot, u8 read-only, u64 bytes, ... at the record's end.
		local tail = 4 + 4 + 1 + 8 + 4 + 64 + 3 * 8
		local function changed(offset, bytes)
			scratch.write(path .. "/meta", records.changed(meta, "SNAP", function(payload)
				return records.replace(payload, #payload - tail + 1 + offset, bytes)
			end))
		end
		for _, case in ipairs {
			{ 0, ("<I4"):pack(129), "129 volumes" }, { 4, ("<I4"):pack(1), "volume 0 is malformed" },
			{ 8, "\4", "volume 0 is malformed" }, { 9, ("<I8"):pack(100), "volume 0 is malformed" },
			{ 9, ("<I8"):pack(0), "volume 0 is malformed" }, { 9, ("<I8"):pack(-512), "volume 0 is malformed" },
			{ 9, ("<I8"):pack(512), "volume-0: 4194304 bytes, expected 512" },
		} do
			changed(case[1], case[2])
			refused(case[3])
		end
		scratch.write(path .. "/meta", records.changed(meta, "SNAP", function(payload)
			return payload:sub(1, -tail - 1) .. ("<I4"):pack(0)
		end))
		refused "nothing for volume 0"
	end)
end)

describe("a worker with a volume #kvm", function()
	it("ends well when its parent is killed in the midst of a save", function()
		local folder <close> = folders.new()
		local path = folder:join "data.img"
		scratch.run("head -c 200M /dev/zero >" .. path)
		local script = folder:write("save.lua", ([[
			local sm = require "supermachine"
			local vm = assert(sm.vm.new { kernel = %q, memory_mib = %d, transport = "worker",
				volumes = { { host = %q, format = false } } })
			assert(vm:resume())
			while vm:console() == "" do end
			print "saving"
			io.flush()
			vm:snapshot(%q)
		]]):format(guest.write(folder:join "kernel", disk.new({ memory_mib = memory_mib, volumes = 1 }, 0):endless()),
			memory_mib, path, folder:join "snapshot"))
		assert.equal("exit 0", scratch.run(("python3 spec/support/orphan.py 0.05 %s/supermachine %s"):format(build.dir,
			script)))
	end)
end)

for _, transport in ipairs { "direct", "worker" } do
	describe("a machine's volume (" .. transport .. ") #kvm", function()
		it("is a file of the host, and its own while it lives", function()
			local folder <close> = folders.new()
			local vm <close>, path = booted(folder, transport)
			assert.equal(words(FIRST, 1), scratch.read(path):sub(1, 4))
			assert.equal(4 * MIB, #scratch.read(path))
			local slot
			for _, device in ipairs(vm:devices()) do if device.kind == "volume" then slot = device end end
			assert.same({ true, 2, SECTOR, 0, 0 }, { slot.backed, slot.requests, slot.bytes, slot.errors, slot.full })
			local none, message, code = sm.vm.new {
				kernel = folder:join "kernel", memory_mib = memory_mib, volumes = { { host = path, format = false } },
			}
			assert.same({ nil, "EBUSY" }, { none, code })
			assert.matches(path .. ": in use", message, 1, true)
			vm:close()
			booted(folder, transport):close()
		end)

		-- What the guest was told is on the disk outlives whatever becomes of us.
		it("has what was flushed after kill -9", function()
			local folder <close> = folders.new()
			local kernel, path = guest.write(folder:join "kernel", story()), folder:join "data.img"
			local script = folder:write("run.lua", ([[
				local sm = require "supermachine"
				local vm = assert(sm.vm.new { kernel = %q, memory_mib = %d, transport = %q,
					volumes = { { host = %q, size_mib = 4, format = false } } })
				assert(vm:resume())
				while assert(vm:console()) == "" do end
				io.write(vm:console())
				io.flush()
				vm:wait()
			]]):format(kernel, memory_mib, transport, path))
			local pipe = folder:join "pipe"
			scratch.run(("mkfifo %s; %s %s >%s & pid=$!; head -c1 <%s >/dev/null; kill -9 $pid; wait $pid || true"):format(pipe,
				build.dir .. "/supermachine", script, pipe, pipe))
			assert.equal(words(FIRST, 1), scratch.read(path):sub(1, 4))
			-- The lock goes with the last of its processes.
			scratch.run("flock -w 20 " .. path .. " true")
			booted(folder, transport):close()
		end)

		it("is in a snapshot as it was, and each machine from it writes above that", function()
			local folder <close> = folders.new()
			local vm <close>, path = booted(folder, transport)
			local times = assert(vm:snapshot(folder:join "one"))
			assert.is_true(times.pause_us >= times.volumes_us)
			local content = scratch.read(path)
			assert.is_true(scratch.read(folder:join "one/volume-0") == content)
			disk.tell(vm, 1)
			console(vm, 8, 1)
			assert.is_false(scratch.read(path) == content)

			local snapshot <close> = assert(sm.snapshot.open(folder:join "one", { verify = true }))
			local seen = {}
			local machines = assert(snapshot:restore_many(2, { transport = transport }))
			for i, clone in ipairs(machines) do
				disk.tell(clone, 1)
				local text = console(clone, 8)
				assert.equal(0, word(text, 1))
				seen[i] = word(text, 5)
				assert.is_true(seen[i] ~= 0)
			end
			for i, clone in ipairs(machines) do
				disk.tell(clone, 2)
				assert.equal(words(seen[i], 1) .. words(FIRST, 1), (console(clone, 8, 8)))
				clone:close()
			end
			assert.is_true(seen[1] ~= seen[2])
			assert.is_true(scratch.read(folder:join "one/volume-0") == content)
			assert(sm.snapshot.open(folder:join "one", { verify = true })):close()
		end)

		it("is what the snapshot says after each reset", function()
			local folder <close> = folders.new()
			do
				local vm <close> = booted(folder, transport)
				assert(vm:snapshot(folder:join "one"))
			end
			local snapshot <close> = assert(sm.snapshot.open(folder:join "one"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			local before
			for _ = 1, 3 do
				disk.tell(clone, 1)
				local text = console(clone, 8)
				assert.equal(0, word(text, 1))
				assert.not_equal(before, word(text, 5))
				before = word(text, 5)
				assert(clone:reset())
			end
		end)

		it("is whole in a snapshot of a machine from a snapshot, a diff too", function()
			local folder <close> = folders.new()
			do
				local vm <close> = booted(folder, transport)
				assert(vm:snapshot(folder:join "one"))
			end
			local one <close> = assert(sm.snapshot.open(folder:join "one"))
			local clone <close> = assert(one:restore { transport = transport })
			disk.tell(clone, 1)
			local own = word(console(clone, 8), 5)
			assert(clone:snapshot(folder:join "two"))
			assert(clone:snapshot(folder:join "diff", nil, { diff = true }))
			do
				local diff <close> = assert(sm.snapshot.open(folder:join "diff"))
				assert(diff:flatten(folder:join "flat"))
			end
			for _, name in ipairs { "two", "diff", "flat" } do
				local snapshot <close> = assert(sm.snapshot.open(folder:join(name), { verify = true }))
				local other <close> = assert(snapshot:restore { transport = transport })
				disk.tell(other, 2)
				assert.equal(words(own, 1) .. words(FIRST, 1), (console(other, 8)))
				local expected = words(FIRST, 1) .. ("\0"):rep(9 * SECTOR - 4) .. words(own, 1)
				assert.equal(expected, scratch.read(folder:join(name .. "/volume-0")):sub(1, #expected))
			end
		end)

		-- The guest itself looks whether its disk is of the same moment as its RAM.
		it("is of one moment with RAM where the machine is saved in the midst of its requests", function()
			local folder <close> = folders.new()
			local path = folder:join "data.img"
			scratch.run("head -c 20M /dev/zero >" .. path)
			local vm <close> = assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", disk.new({ memory_mib = memory_mib, volumes = 1 }, 0):endless()),
				memory_mib = memory_mib, transport = transport, volumes = { { host = path, format = false } },
			})
			assert(vm:resume())
			local from, at = vm, 0
			for round = 1, 3 do
				local text
				text, at = console(from, 5, at)
				assert.is_nil(text:find "[^.]")
				local place = folder:join("snapshot" .. round)
				local times = assert(from:snapshot(place))
				assert.is_true(times.volumes_us < times.pause_us)
				assert.is_nil(console(from, 5, at):find "[^.]")
				assert(from:pause())
				local snapshot <close> = assert(sm.snapshot.open(place, { verify = true }))
				local clone = assert(snapshot:restore { transport = transport })
				text = console(clone, 5)
				assert.is_nil(text:find "[^.]")
				if from ~= vm then from:close() end
				from, at = clone, 0
			end
			from:close()
		end)

		it("that is read-only is so in the snapshot, too", function()
			local folder <close> = folders.new()
			scratch.write(folder:join "data.img", words(FIRST, MIB // 4))
			local vm <close>, path = booted(folder, transport, { readonly = true })
			assert(vm:snapshot(folder:join "one"))
			assert.is_true(scratch.read(path) == words(FIRST, MIB // 4))
			local snapshot <close> = assert(sm.snapshot.open(folder:join "one"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			disk.tell(clone, 1)
			assert.equal(words(FIRST, 2), (console(clone, 8)))
		end)

		it("can be given to a slot that has none, and is gone after a reset", function()
			local folder <close> = folders.new()
			do
				local config = { memory_mib = memory_mib, volume_slots = 1 }
				local it = disk.new(config, 0)
				local function show(sector)
					return it:read(sector, it.data, SECTOR) .. guest.load(it.page + 0x3010) .. guest.print_word()
				end
				local vm <close> = assert(sm.vm.new {
					kernel = guest.write(folder:join "kernel", it:start(ALL) .. guest.store(it.data + 4096, FIRST) .. guest.print "r"
						.. it:await(1) .. show(0) .. it:write(1, it.data + 4096, SECTOR) .. show(1) .. guest.idle()),
					memory_mib = memory_mib, volume_slots = 1, transport = transport,
				})
				assert(vm:resume())
				console(vm, 1)
				assert(vm:snapshot(folder:join "one"))
				assert.is_nil(io.open(folder:join "one/volume-0"))
			end
			local snapshot <close> = assert(sm.snapshot.open(folder:join "one"))
			local path = folder:join "own.img"
			local clone <close> = assert(snapshot:restore {
				transport = transport, volumes = { { host = path, size_mib = 1, format = false } },
			})
			local none, message, code = snapshot:restore {
				transport = transport, volumes = { { host = path, format = false } },
			}
			assert.same({ nil, "EBUSY" }, { none, code })
			assert.matches("in use", message)
			disk.tell(clone, 1)
			assert.equal(words(0, 2), (console(clone, 8))) -- statuses
			assert.equal(words(FIRST, 1), scratch.read(path):sub(SECTOR + 1, SECTOR + 4))
			-- A snapshot of it has the content; the file is not its business.
			assert(clone:snapshot(folder:join "two"))
			assert.is_true(scratch.read(folder:join "two/volume-0") == scratch.read(path))
			assert(clone:reset())
			scratch.run("flock -n " .. path .. " true")
			disk.tell(clone, 1)
			assert.equal(words(1, 2), (console(clone, 8)))
			local two <close> = assert(sm.snapshot.open(folder:join "two"))
			local third <close> = assert(two:restore { transport = transport })
			assert.is_true(third:devices()[2].backed)
			-- Read-only behind a slot that the guest found writable, and so in a snapshot.
			local fourth <close> = assert(snapshot:restore {
				transport = transport, volumes = { { host = path, format = false, readonly = true } },
			})
			assert(fourth:snapshot(folder:join "three"))
			local three <close> = assert(sm.snapshot.open(folder:join "three"))
			local fifth <close> = assert(three:restore { transport = transport })
			for _, machine in ipairs { fourth, fifth } do
				disk.tell(machine, 1)
				-- Read; written to: its first word is what it was.
				local text = console(machine, 8)
				assert.equal(0, word(text, 1))
			end
			assert.is_true(scratch.read(folder:join "three/volume-0") == scratch.read(path))
			local full, why, name = snapshot:restore {
				transport = transport, volumes = {
					{ host = folder:join "a", size_mib = 1, format = false }, { host = folder:join "b", size_mib = 1, format = false },
				},
			}
			assert.same({ nil, "ENOSPC" }, { full, name })
			assert.matches("the machine has 1 slots", why)
		end)
	end)
end
