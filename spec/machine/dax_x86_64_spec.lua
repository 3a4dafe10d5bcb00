-- The DAX window under a vCPU: a kernel of a few hundred instructions drives the file system device, and maps files.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local guest = require "spec.support.microguest"
local micro = require "spec.support.micro_fs_x86_64"
local records = require "spec.support.records"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local MIB <const> = 1 << 20
local VIEW <const> = 0x40000000 -- where the guest sees the window's start, by PAE

local function le32(value) return string.pack("<I4", value & 0xffffffff) end
local poke, await, driver, EXPECTED <const> = micro.poke, micro.await, micro.driver, micro.expected

-- The window lies above what 32 bits reach.  Identity for code, data and devices, and the window at VIEW.
local function paging(window)
	local tables = 0x380000
	local function entry(at, value) return poke(at, ("<I8"):pack(value)) end
	local out = { entry(tables, tables + 0x1000 | 1), entry(tables + 8, tables + 0x2000 | 1),
		entry(tables + 16, 0), entry(tables + 24, tables + 0x3000 | 1) }
	for i = 0, 7 do
		out[#out + 1] = entry(tables + 0x1000 + 8 * i, i * 2 * MIB | 0x83)
		out[#out + 1] = entry(tables + 0x2000 + 8 * i, window + i * 2 * MIB | 0x83)
	end
	out[#out + 1] = entry(tables + 0x3000 + 8 * ((guest.mmio_base - 0xc0000000) // (2 * MIB)), guest.mmio_base | 0x83)
	return table.concat(out) .. "\xb8" .. le32(0x20) .. "\x0f\x22\xe0" -- CR4.PAE
		.. "\xb8" .. le32(tables) .. "\x0f\x22\xd8" -- CR3
		.. "\x0f\x20\xc0\x0d" .. le32(0x80000000) .. "\x0f\x22\xc0" -- CR0.PG
end

local function plan_of(options)
	return core.plan { memory_mib = 16, mounts = 1, dax_mib = options.dax_mib }
end

for _, transport in ipairs { "direct", "worker" } do
	describe("a DAX window under a vCPU (" .. transport .. ") #lab", function()
		local folder, source
		before_each(function()
			folder, source = folders.new(), folders.new()
			source:write("mapped", "file" .. ("m"):rep(8 * MIB - 4))
		end)
		after_each(function()
			folder:close()
			source:close()
		end)

		local function machine(code_of, options)
			options = options or {}
			local plan = plan_of { dax_mib = 16 }
			local drive = driver(plan)
			local code = paging(drive.slot.dax.gpa) .. drive.start() .. code_of(drive)
			return assert(sm.vm.new {
				kernel = guest.write(folder:join "kernel", code), memory_mib = 16, dax_mib = 16, transport = transport,
				mounts = { { host = source.path, guest = "/src", readonly = options.readonly } },
			})
		end
		local function console(vm, bytes)
			local text, cursor = "", 0
			while #text < bytes do
				local chunk
				assert.is_nil((vm:ended()))
				chunk, cursor = assert(vm:console_from(cursor))
				text = text .. chunk
			end
			return text
		end
		local function fs_of(vm)
			for _, device in ipairs(assert(vm:devices())) do if device.fs then return device.fs end end
		end
		-- Into the file as it is, for whoever maps it.
		local function put(offset, text)
			scratch.run(("printf '%%s' %s | dd of=%s bs=1 seek=%d conv=notrunc status=none"):format(scratch.quote(text),
				scratch.quote(source:join "mapped"), offset))
		end
		local function wait(vm)
			assert(vm:resume())
			local reason, detail = vm:wait { timeout_ms = 20000 }
			return reason, detail
		end

		it("shows a file's pages, both ways", function()
			local vm <close> = machine(function(drive)
				return drive.map("mapped", 8 * MIB, 1) .. guest.load(VIEW) .. guest.print_word()
					.. guest.store(VIEW + 5 * MIB, 0x74736567) .. guest.load(VIEW + 5 * MIB - 4) .. guest.print_word()
					.. guest.poweroff()
			end)
			assert.are.equal("poweroff", (wait(vm)))
			assert.are.equal("filemmmm", vm:console())
			assert.are.equal("gest", scratch.read(source:join "mapped"):sub(5 * MIB + 1, 5 * MIB + 4))
			assert.are.equal(8 * MIB, fs_of(vm).dax_bytes)
		end)

		it("gives zeros where a mapped file was cut, and the guest goes on", function()
			local vm <close> = machine(function(drive)
				return drive.map("mapped", 8 * MIB, 1) .. guest.load(VIEW) .. guest.print_word()
					.. guest.store(EXPECTED, (("<I4"):unpack("go!!"))) .. await(VIEW, EXPECTED)
					.. guest.load(VIEW + 3 * MIB) .. guest.print_word()
					.. guest.load(VIEW + 7 * MIB) .. guest.print_word()
					.. guest.store(VIEW + 7 * MIB, 0x21212121) .. guest.load(VIEW + 7 * MIB) .. guest.print_word()
					.. guest.poweroff()
			end)
			assert(vm:resume())
			assert.are.equal("file", console(vm, 4))
			scratch.run(("truncate -s 4096 %s"):format(scratch.quote(source:join "mapped")))
			put(0, "go!!")
			local reason, detail = vm:wait { timeout_ms = 20000 }
			assert.are.equal("poweroff", reason, detail)
			assert.are.equal("file\0\0\0\0\0\0\0\0!!!!", vm:console())
			assert.is_true(fs_of(vm).mended >= 2)
			assert.are.equal(4096, #scratch.read(source:join "mapped"))
		end)

		it("is where a request's data may go", function()
			source:write("other", "other")
			local vm <close> = machine(function(drive)
				local code = drive.map("mapped", 8 * MIB, 1)
				local lookup, send_lookup, _, entry = drive.request(fuse.request("LOOKUP", 1, "other\0"), 16 + 128)
				code = code .. lookup .. send_lookup()
				local open, send_open, head, opened = drive.request(fuse.request("OPEN", 0, ("<I4I4"):pack(0, 0)), 16 + 16)
				code = code .. open .. micro.move(entry + 16, head + 16) .. send_open()
				local read, send_read, at = drive.request(fuse.request("READ", 0, ("<I8I8I4I4I8I4I4"):pack(0, 0, 4, 0, 0, 0, 0)),
					16, { drive.slot.dax.gpa + MIB, 4 })
				return code .. read .. micro.move(entry + 16, at + 16)
					.. micro.move(opened + 16, at + 40) .. send_read()
					.. guest.load(VIEW + MIB) .. guest.print_word() .. guest.poweroff()
			end)
			assert.are.equal("poweroff", (wait(vm)))
			assert.are.equal("othe", vm:console())
			assert.are.equal("othem", scratch.read(source:join "mapped"):sub(MIB + 1, MIB + 5))
		end)

		it("is not written to where the mount is read-only", function()
			local vm <close> = machine(function(drive)
				return drive.map("mapped", 8 * MIB, 2) .. guest.store(VIEW + 4096, 0x74736567)
					.. guest.load(VIEW) .. guest.print_word() .. guest.load(VIEW + 4096) .. guest.print_word()
					.. guest.poweroff()
			end, { readonly = true })
			assert.are.equal("poweroff", (wait(vm)))
			assert.are.equal("filemmmm", vm:console())
			assert.is_nil(scratch.read(source:join "mapped"):find "gest")
		end)

		it("comes back in snapshots and resets, and is not in their RAM", function()
			local vm <close> = machine(function(drive)
				return drive.map("mapped", 8 * MIB, 1) .. guest.print "boot"
					.. guest.loop(guest.load(VIEW + 6 * MIB) .. guest.print_word())
			end)
			assert(vm:resume())
			assert.are.equal("bootmmmm", console(vm, 8):sub(1, 8))
			assert(vm:snapshot(folder:join "snapshot", {}))
			assert.is_nil(scratch.read(folder:join "snapshot/ram"):find(("m"):rep(4096), 1, true))
			assert.are.equal(16 * MIB, #scratch.read(folder:join "snapshot/ram"))
			vm:close()
			put(6 * MIB, "next")
			local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
			local clone <close> = assert(snapshot:restore { transport = transport })
			assert.is_truthy(console(clone, 64):find("nextnext", 1, true))
			for _, word in ipairs { "mine", "your" } do
				put(6 * MIB, word)
				assert(clone:reset())
				assert.is_truthy(console(clone, 64):find(word .. word, 1, true))
			end
			-- Cut while nobody looked: zeros, and the machine lives.
			assert(clone:pause())
			scratch.run(("truncate -s 1M %s"):format(scratch.quote(source:join "mapped")))
			assert(clone:reset())
			assert.is_truthy(console(clone, 64):find("\0\0\0\0\0\0\0\0", 1, true))
			assert.are.equal(16 * MIB, clone:plan().slots[#clone:plan().slots].dax.bytes)
		end)
	end)
end

describe("a machine with mounts #kvm", function()
	local folder, source
	before_each(function()
		folder, source = folders.new(), folders.new()
	end)
	after_each(function()
		folder:close()
		source:close()
	end)

	it("is refused for what is wrong with them, by name", function()
		local kernel = guest.write(folder:join "kernel", guest.spin())
		local function fails(code, words, mounts, options)
			local request = { kernel = kernel, memory_mib = 16, mounts = mounts }
			for key, value in pairs(options or {}) do request[key] = value end
			local none, message, got = sm.vm.new(request)
			assert.is_nil(none)
			assert.matches(words, message)
			assert.are.equal(code, got)
		end
		local missing = folder:join "missing"
		fails("ENOENT", "mount 1: host path .*missing: No such file", { { host = missing, guest = "/a" } })
		fails("EINVAL", "mount 1: host path /dev/null: neither a folder nor a regular file", {
			{ host = "/dev/null", guest = "/a" },
		})
		fails("EINVAL", "dax_mib: 3 MiB for 2 mounts leave less than 2 MiB", {
			{ host = source.path, guest = "/a" }, { host = source.path, guest = "/b" },
		}, { dax_mib = 3 })
		local many = {}
		for i = 1, 17 do many[i] = { host = source.path, guest = "/m" .. i } end
		fails("ENOSPC", "too many devices: fs %d+ needs IRQ 24, the limit is 23 %(0 block devices, 17 mounts%)", many)
		local function raises(words, mounts)
			assert.error_matches(function() sm.vm.new { kernel = kernel, mounts = mounts } end, words)
		end
		raises("'mounts'%[1%]: host: a path expected", { { guest = "/a" } })
		raises("'mounts'%[1%]: guest: an absolute path", { { host = "/", guest = "a" } })
		raises("'mounts'%[1%]: guest: an absolute path", { { host = "/", guest = "/a/../b" } })
		raises("'mounts'%[1%]: guest: an absolute path", { { host = "/" } })
		raises("'mounts'%[2%]: guest: /a is there twice", { { host = "/", guest = "/a" }, { host = "/", guest = "/a/" } })
		raises("'mounts'%[2%]: tag: 'x' is there twice", {
			{ host = "/", guest = "/a", tag = "x" }, { host = "/", guest = "/b", tag = "x" },
		})
		raises("tag: 1 to 36 bytes", { { host = "/", guest = "/a", tag = ("t"):rep(37) } })
		raises("tag: 'mount1' is a slot's own", { { host = "/", guest = "/a", tag = "mount1" } })
		raises("cache: always, auto, strict expected, got 'lax'", { { host = "/", guest = "/a", cache = "lax" } })
		raises("unknown option 'read_only'", { { host = "/", guest = "/a", read_only = true } })
		raises("writeback: not with cache = 'strict'", { { host = "/", guest = "/a", writeback = true } })
		raises("owners%[1%]: guest, host and count", { { host = "/", guest = "/a", owners = { { guest = 0 } } } })
		raises("xattrs%[1%]", { { host = "/", guest = "/a", xattrs = { "a,b" } } })
	end)

	it("takes every option that there is, and keeps it in snapshots", function()
		local kernel = guest.write(folder:join "kernel", guest.spin())
		source:write("one", "1")
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16, mounts = {
			{ host = source.path, guest = "/a/", tag = "first", cache = "auto", writeback = true, symlinks = "deny",
				locks = "host",
				owners = { { guest = 0, host = 0, count = 1000 } }, xattrs = { "user.*", "security.capability" }, dax = false },
			{ host = source.path, guest = "/b", cache = "always", symlinks = "follow", owners = "squash", xattrs = {} },
			{ host = source:join "one", guest = "/c//d/", readonly = true },
		} })
		local expected = {
			{ host = source.path, guest = "/a", tag = "first", readonly = false },
			{ host = source.path, guest = "/b", tag = "mount1", readonly = false },
			{ host = source:join "one", guest = "/c/d", tag = "mount2", readonly = true },
		}
		assert.are.same(expected, vm:mounts())
		assert(vm:snapshot(folder:join "snapshot"))
		local snapshot <close> = assert(sm.snapshot.open(folder:join "snapshot"))
		local clone <close> = assert(snapshot:restore { paused = true })
		assert.are.same(expected, clone:mounts())
		assert(clone:snapshot(folder:join "again"))
		-- The list is the same, byte for byte.
		local function list(path)
			local meta = scratch.read(path .. "/meta")
			local at = assert(meta:find("MNTS", 1, true))
			return meta:sub(at, at + 8 + ("<I4"):unpack(meta, at + 8))
		end
		assert.are.equal(list(folder:join "snapshot"), list(folder:join "again"))
		local manifest = core.json_decode(scratch.read(folder:join "snapshot/manifest.json"))
		assert.are.equal("/c/d", manifest.mounts[3].guest)
		-- A list that lies is refused.
		local path, meta = folder:join "snapshot/meta", scratch.read(folder:join "snapshot/meta")
		for from, to in pairs { mount1 = "mount2", ["/b"] = "/a", ["/c/d"] = "c//d", mount2 = "moun\0t" } do
			scratch.write(path, records.changed(meta, "SNAP", function(payload)
				local at = assert(payload:find("MNTS", 1, true))
				local len = ("<I4"):unpack(payload, at + 8)
				local inner = payload:sub(at + records.header, at + records.header + len - 1)
				local first, last = assert(inner:find(("<s4"):pack(from), 1, true))
				inner = inner:sub(1, first - 1) .. ("<s4"):pack(to) .. inner:sub(last + 1)
				return payload:sub(1, at - 1) .. core.record_write("MNTS", 1, inner) .. payload:sub(at + records.header + len)
			end))
			local none, message, code = sm.snapshot.open(folder:join "snapshot")
			assert.is_nil(none, from)
			assert.matches("mount list", message)
			assert.are.equal("EBADMSG", code)
		end
	end)

	it("has no window where none is wanted", function()
		local kernel = guest.write(folder:join "kernel", guest.spin())
		local vm <close> = assert(sm.vm.new { kernel = kernel, memory_mib = 16, dax_mib = 0,
			mounts = { { host = source.path, guest = "/a" } } })
		for _, slot in ipairs(vm:plan().slots) do assert.is_nil(slot.dax) end
		local command = ("SUPERMACHINE_VIRTIOFS_DAX=%%s %s/supermachine -e %s"):format(require("spec.support.build").dir,
			scratch.quote(([[local sm = require "supermachine"
			local vm = assert(sm.vm.new { kernel = %q, memory_mib = 16, mounts = { { host = %q, guest = "/a" } } })
			for _, slot in ipairs(vm:plan().slots) do if slot.kind == "fs" then print(slot.dax ~= nil) end end]]):format(kernel,
				source.path)))
		for value, found in pairs { off = "false", ["0"] = "false", no = "false", on = "true", [""] = "true" } do
			assert.are.equal(found, scratch.run(command:format(value)))
		end
	end)
end)
