-- What a cold boot puts into an x86_64 machine: kernel, initramfs, command line, tables, and where vCPU 0 starts.
local core = require "supermachine.core"
local kernel_files = require "spec.support.kernel_files"
local scratch = require "spec.support.scratch"

local MIB = 1 << 20

-- An ELF-64 file from program headers {type, paddr, data, memsz, align}.
local function elf(segments, fields)
	fields = fields or {}
	local count = #segments
	local headers, body, at = {}, {}, 64 + 56 * count
	for index, segment in ipairs(segments) do
		local data = segment.data or ""
		headers[index] = string.pack("<I4I4I8I8I8I8I8I8", segment.type, 7, segment.offset or at, segment.paddr or 0,
			segment.paddr or 0, segment.filesz or #data, segment.memsz or #data, segment.align or 4)
		body[index] = data
		at = at + #data
	end
	return "\x7fELF" .. string.char(fields.class or 2, 1, 1) .. ("\0"):rep(9)
		.. string.pack("<I2I2I4I8I8I8I4I2I2I2I2I2I2", 2, fields.machine or 62, 1, 0, fields.phoff or 64, 0, 0, 64,
			fields.phentsize or 56, fields.phnum or count, 64, 0, 0)
		.. table.concat(headers) .. table.concat(body)
end

local function note(name, kind, value, align)
	local function pad(text) return text .. ("\0"):rep(-#text % (align or 4)) end
	return string.pack("<I4I4I4", #name + 1, #value, kind) .. pad(name .. "\0") .. pad(value)
end

local LOAD, NOTE = 1, 4
local ENTRY = 2 * MIB + 0x10

local function kernel(entry_note)
	return {
		{
			type = NOTE,
			data = note("GNU", 3, "0123456789abcdef0123") .. (entry_note or note("Xen", 18, string.pack("<I4", ENTRY))),
		},
		{ type = LOAD, paddr = 2 * MIB, data = ("code"):rep(5000), memsz = 40000 },
		{ type = LOAD, paddr = 4 * MIB, data = "data", memsz = 0x100000 },
	}
end

-- A bzImage of protocol 2.15 whose protected-mode part is `payload`.
local function bzimage(payload, fields)
	fields = fields or {}
	local header = string.pack("<I1I2I4I2I2I2I2I1I1c4I2I4I2I2I1I1I2I4I4I4I4I2I1I1I4I4I4I1I1I2I4I4I8I4I4I8I8I4I4I4",
		fields.setup_sects or 1, 0, fields.syssize or (#payload + 15) // 16, 0, 0xffff, 0, 0xaa55, 0xeb, 0x6a, "HdrS",
		fields.version or 0x020f, 0, 0, 0, 0, 1, 0, MIB, 0, 0, 0, 0, 0, 0, 0, fields.initrd_max or 0x7fffffff, 2 * MIB, 1, 21,
		fields.xloadflags or 1, fields.cmdline_size or 2047, 0, 0, 0, 0, 0, fields.pref or 16 * MIB,
		fields.init_size or MIB, 0, 0)
	local image = ("\xcc"):rep(0x1f1) .. header
	return image .. ("\xcc"):rep(1024 - #image) .. payload
end

describe("loading an x86_64 kernel", function()
	local files
	before_each(function() files = kernel_files.new "x86_64" end)
	after_each(function() files:close() end)

	local function load(...) return files:load(...) end
	local function refused(...) return files:refused(...) end

	-- What the start info says.
	local function start_info(memory, gpa)
		local info = {}
		local modules, cmdline, memmap
		info.magic, info.version, info.flags, info.nmodules, modules, cmdline, info.rsdp, memmap, info.nmap =
			string.unpack("<I4I4I4I4I8I8I8I8I4", memory:read(gpa, 56))
		info.cmdline = memory:read(cmdline, 2048):match "^[^\0]*"
		info.map = {}
		for index = 1, info.nmap do
			local base, bytes, kind = string.unpack("<I8I8I4", memory:read(memmap + 24 * (index - 1), 24))
			info.map[index] = { base, bytes, kind }
		end
		if info.nmodules > 0 then
			info.initrd = { string.unpack("<I8I8I8I8", memory:read(modules, 32)) }
			info.initrd[5] = nil -- where unpack stopped
		end
		return info
	end

	it("by its PVH note", function()
		local boot, memory, message = load(elf(kernel()), { memory_mib = 32, cmdline = "hello=world" })
		local _ <close> = memory
		assert.is_nil(message)
		assert.are.same({ "pvh", ENTRY }, { boot.kind, boot.entry })
		assert.are.equal(("code"):rep(5000), memory:read(2 * MIB, 20000))
		assert.are.equal(("\0"):rep(20000), memory:read(2 * MIB + 20000, 20000))
		assert.are.equal("data\0", memory:read(4 * MIB, 5))
		local info = start_info(memory, boot.arg)
		assert.are.same({ 0x336ec578, 1, 0, 0 }, { info.magic, info.version, info.flags, info.nmodules })
		assert.is_truthy(info.cmdline:find "^console=ttyS0 .* hello=world$")
		assert.are.equal("RSD PTR ", memory:read(info.rsdp, 8))
		assert.are.same({ { 0, 0x9fc00, 1 }, { 0xe0000, 0x20000, 2 }, { MIB, 31 * MIB, 1 } }, info.map)
		local tables = core.x86_acpi { arch = "x86_64", memory_mib = 32, cmdline = "hello=world" }
		assert.are.equal(tables, memory:read(0xe0000, #tables))
		assert.are.equal(("\0"):rep(4096), memory:read(0xff000, 4096)) -- where the generation ID will be
	end)

	it("with memory above 4 GiB", function()
		local boot, memory = load(elf(kernel()), { memory_mib = 4096 })
		local _ <close> = memory
		assert.are.same({ { 0, 0x9fc00, 1 }, { 0xe0000, 0x20000, 2 }, { MIB, 3071 * MIB, 1 }, { 4096 * MIB, 1024 * MIB, 1 } },
			start_info(memory, boot.arg).map)
	end)

	it("whose note has 8 bytes, or 8-byte alignment", function()
		for _, align in ipairs { 4, 8 } do
			local segments = kernel()
			segments[1] = { type = NOTE, align = align,
				data = note("other", 18, "1", align) .. note("Xen", 18, string.pack("<I8", ENTRY), align) }
			local boot, memory, message = load(elf(segments))
			memory:close()
			assert.is_nil(message)
			assert.are.equal(ENTRY, boot.entry)
		end
	end)

	it("and an initramfs, as high as it may be", function()
		local initrd = ("initramfs"):rep(1000)
		for mib, top in pairs { [32] = 32 * MIB, [4096] = 3072 * MIB } do
			local boot, memory = load(elf(kernel()), { memory_mib = mib }, initrd)
			local place = start_info(memory, boot.arg).initrd
			assert.are.same({ top - 12288, #initrd, 0, 0 }, place)
			assert.are.equal(initrd, memory:read(place[1], place[2]))
			memory:close()
		end
		-- Down to the byte after the kernel, and no further.
		local boot, memory = load(elf(kernel()), { memory_mib = 16 }, ("x"):rep(11 * MIB))
		assert.are.equal(5 * MIB, start_info(memory, boot.arg).initrd[1])
		memory:close()
		local message, code = refused(elf(kernel()), { memory_mib = 16 }, ("x"):rep(11 * MIB + 1))
		assert.are.equal("E2BIG", code)
		assert.is_truthy(message:find "initramfs: 11534337 bytes do not fit")
		assert.are.equal("E2BIG", select(2, refused(elf(kernel()), { memory_mib = 16 }, ("x"):rep(17 * MIB))))
	end)

	it("that is none is refused by name", function()
		for image, expected in pairs {
			[""] = "kernel: neither an ELF image with a PVH note nor a bzImage",
			["#!/bin/sh\n" .. ("x"):rep(3000)] = "kernel: neither an ELF image with a PVH note nor a bzImage",
			[("\0"):rep(56) .. "ARM\x64" .. ("\0"):rep(4096)] = "kernel: an aarch64 Image, and this machine is x86_64",
			["\x1f\x8b\8\0" .. ("x"):rep(100)] = "kernel: compressed with gzip: unpack it first",
			["\x28\xb5\x2f\xfd" .. ("x"):rep(100)] = "kernel: compressed with zstd: unpack it first",
			["\xfd7zXZ\0" .. ("x"):rep(100)] = "kernel: compressed with xz: unpack it first",
			["MZ\0\0zimg" .. string.pack("<I4I4", 4096, 5000) .. ("x"):rep(100)] =
				"kernel: an EFI zboot image: unpack its payload first (5000 bytes at 4096)",
			["\x7fELF"] = "kernel: cut short: 4 bytes end before the ELF header",
			[elf(kernel(), { machine = 183 })] = "kernel: an aarch64 ELF image, and this machine is x86_64",
			[elf(kernel(), { class = 1 })] = "kernel: an ELF image, but not a 64-bit x86_64 one",
			[elf(kernel(), { machine = 3 })] = "kernel: an ELF image, but not a 64-bit x86_64 one",
			[elf(kernel(), { phnum = 0 })] = "kernel: 0 program headers of 56 bytes, from 1 to 64 of 56 are possible",
			[elf(kernel(), { phnum = 65 })] = "kernel: 65 program headers of 56 bytes, from 1 to 64 of 56 are possible",
			[elf(kernel(), { phentsize = 32 })] = "kernel: 3 program headers of 32 bytes, from 1 to 64 of 56 are possible",
			[elf(kernel(), { phoff = -8 })] = "kernel: cut short: 20292 bytes end before the program headers",
			[elf { { type = LOAD, paddr = 2 * MIB, data = "code" } }] =
				"kernel: an ELF image without a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY): Linux has one with CONFIG_PVH",
			[elf(kernel(note("Xen", 17, string.pack("<I4", ENTRY))))] =
				"kernel: an ELF image without a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY): Linux has one with CONFIG_PVH",
			[elf(kernel(note("Xen", 18, string.pack("<I4", 6 * MIB))))] = "kernel: its PVH entry 0x600000 lies outside of it",
			[elf(kernel(note("Xen", 18, string.pack("<I4", 0x1000))))] = "kernel: its PVH entry 0x1000 lies outside of it",
		} do
			local message, code = refused(image)
			assert.are.same({ expected, "ENOEXEC" }, { message, code })
		end
		-- A note whose sizes lead out of the segment.
		for _, sizes in ipairs { { 0xffffffff, 4 }, { 4, 0xffffffff }, { 4, 5000 }, { 0xfffffffd, 0xfffffffd } } do
			local bad = string.pack("<I4I4I4", sizes[1], sizes[2], 18) .. "Xen\0\0\0\0\0"
			assert.are.equal("ENOEXEC", select(2, refused(elf(kernel(bad)))))
		end
	end)

	it("whose segments are not where they can be is refused", function()
		local function with(change)
			local segments = kernel()
			for key, value in pairs(change) do segments[2][key] = value end
			return refused(elf(segments), { memory_mib = 16 })
		end
		for _, case in ipairs {
			{ { filesz = 50000 }, "segment 1 is larger in the file", "ENOEXEC" },
			{ { paddr = 0xff000 }, "segment 1 at 0xff000 lies below 1 MiB", "ENOEXEC" },
			{ { paddr = 16 * MIB - 4096 }, "segment 1 %(40000 bytes at 0xfff000%) is not within 16 MiB", "E2BIG" },
			{ { memsz = 14 * MIB + 1 }, "is not within 16 MiB", "E2BIG" },
			{ { memsz = -1 }, "is not within 16 MiB", "E2BIG" },
			{ { paddr = -4096 }, "is not within 16 MiB", "E2BIG" },
			{ { paddr = 0xd0000000 }, "is not within 16 MiB", "E2BIG" },
			{ { offset = 1 << 40 }, "cut short: 20292 bytes end before a segment", "ENOEXEC" },
			{ { offset = -1 }, "cut short: 20292 bytes end before a segment", "ENOEXEC" },
		} do
			local message, code = with(case[1])
			assert.is_truthy(message:find(case[2]), message)
			assert.are.equal(case[3], code)
		end
		local segments = kernel()
		segments[1].filesz = 65537
		assert.is_truthy(refused(elf(segments)):find "65537 bytes of notes")
	end)

	it("that is cut short anywhere is refused", function()
		local image = elf(kernel())
		for length = 0, #image - 1, 97 do
			assert.are.equal("ENOEXEC", select(2, refused(image:sub(1, length), { memory_mib = 16 })))
		end
	end)

	it("by a bzImage's 64-bit entry", function()
		local payload = ("payload!"):rep(4000)
		local boot, memory, message = load(bzimage(payload), { memory_mib = 4096, cmdline = "x=y" }, "initramfs")
		local _ <close> = memory
		assert.is_nil(message)
		assert.are.same({ "long64", 16 * MIB + 0x200 }, { boot.kind, boot.entry })
		assert.are.equal(payload, memory:read(16 * MIB, #payload))
		local page = memory:read(boot.arg, 4096)
		local function field(format, offset) return (string.unpack("<" .. format, page, offset + 1)) end
		assert.are.equal("HdrS", page:sub(0x203, 0x206))
		assert.are.equal(0, field("I1", 0x1ef)) -- the sentinel: nothing of the setup code was copied
		assert.are.equal(0xff, field("I1", 0x210)) -- a boot loader without a number
		assert.are.equal(0xe0000, field("I8", 0x70))
		assert.is_truthy(memory:read(field("I4", 0x228), 2048):find "^console=ttyS0 [^\0]* x=y\0")
		-- Below the highest address that the kernel allows.
		local initrd = field("I4", 0x218)
		assert.are.same({ 0x80000000 - 4096, 9 }, { initrd, field("I4", 0x21c) })
		assert.are.equal("initramfs", memory:read(initrd, 9))
		local map = {}
		for index = 1, field("I1", 0x1e8) do
			map[index] = { string.unpack("<I8I8I4", page, 0x2d0 + 20 * (index - 1) + 1) }
			map[index][4] = nil
		end
		assert.are.same({ { 0, 0x9fc00, 1 }, { 0xe0000, 0x20000, 2 }, { MIB, 3071 * MIB, 1 }, { 4096 * MIB, 1024 * MIB, 1 } },
			map)
		local next_data, kind, length = string.unpack("<I8I4I4", memory:read(field("I8", 0x250), 16))
		assert.are.same({ 0, 9, 32 }, { next_data, kind, length })
		assert.are_not.equal(("\0"):rep(32), memory:read(field("I8", 0x250) + 16, 32))
	end)

	it("with the first 4 GiB identity-mapped", function()
		local boot, memory = load(bzimage(("x"):rep(8192)))
		local _ <close> = memory
		local function entry(base, index) return (string.unpack("<I8", memory:read((base & ~0xfff) + 8 * index, 8))) end
		for _, address in ipairs { 0, 2 * MIB, 16 * MIB + 0x200, 0xbfffffff, 0xffffffff } do
			local pointers = entry(boot.page_table, address >> 39 & 511)
			local directory = entry(pointers, address >> 30 & 511)
			local page = entry(directory, address >> 21 & 511)
			assert.are.same({ 3, 3, 0x83 }, { pointers & 0xfff, directory & 0xfff, page & 0xfff })
			assert.are.equal(address & ~0x1fffff, page & ~0xfff)
		end
		assert.are.equal(0, entry(boot.page_table, 1))
		assert.are.equal(string.pack("<I8I8I8I8", 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff), memory:read(0x1000, 32))
	end)

	it("refuses a bzImage that cannot start here", function()
		local payload = ("x"):rep(8192)
		for _, case in ipairs {
			{ { version = 0x0206 }, "boot protocol 2.6, 2.12 or later is needed", "ENOEXEC" },
			{ { xloadflags = 0 }, "without a 64%-bit entry", "ENOEXEC" },
			{ { init_size = 0xf0000001 }, "are not within 256 MiB", "E2BIG" },
			{ { pref = 256 * MIB - 4096 }, "are not within 256 MiB", "E2BIG" },
			{ { pref = -1 }, "are not within 256 MiB", "E2BIG" },
			{ { pref = 0x1000 }, "are not within 256 MiB", "E2BIG" },
			{ { syssize = 600 }, "cut short: 8192 bytes of 9600", "ENOEXEC" },
			{ { setup_sects = 255 }, "cut short", "ENOEXEC" },
			{ { cmdline_size = 10 }, "its command line may have 10 bytes", "E2BIG" },
		} do
			local message, code = refused(bzimage(payload, case[1]))
			assert.is_truthy(message:find(case[2]), message)
			assert.are.equal(case[3], code)
		end
		local image = bzimage(payload)
		for length = 600, #image - 100, 500 do
			assert.is_truthy(select(2, refused(image:sub(1, length))):find "^E")
		end
	end)

	it("for another architecture is refused", function()
		scratch.write(files.kernel_path, elf(kernel()))
		local memory <close> = assert(core.memory { arch = "aarch64" })
		local boot, message, code = core.arch_load(memory, files.kernel_path)
		assert.are.same({ nil, "ENOEXEC" }, { boot, code })
		assert.are.equal("kernel: an x86_64 ELF image, and this machine is aarch64", message)
	end)

	it("from something that is no file is refused", function()
		local memory <close> = assert(core.memory { arch = "x86_64" })
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, files.folder)))
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, "/dev/zero")))
		assert.are.equal("ENOENT", select(3, core.arch_load(memory, files.folder .. "/none")))
		scratch.write(files.kernel_path, elf(kernel()))
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, files.kernel_path, "/dev/null")))
	end)
end)
