-- What a cold boot puts into an aarch64 machine: an Image, its initramfs, the device tree, and where vCPU 0 starts.
local core = require "supermachine.core"
local kernel_files = require "spec.support.kernel_files"
local scratch = require "spec.support.scratch"

local MIB, GIB = 1 << 20, 1 << 30
local RAM = 0x40000000
local BASE = RAM + 2 * MIB

-- An Image with a header by Linux's Documentation/arch/arm64/booting.rst.
local function image(fields, payload)
	fields = fields or {}
	return string.pack("<I4I4I8I8I8I8I8I8c4I4", 0x91005a4d, 0x14000000, fields.text_offset or 0,
		fields.image_size or 3 * MIB, fields.flags or 0xa, 0, 0, 0, fields.magic or "ARM\x64", 0x40)
		.. (payload or ("code"):rep(5000))
end

local function elf(machine, order)
	return "\x7fELF\2" .. string.char(order == ">" and 2 or 1) .. "\1" .. ("\0"):rep(9)
		.. string.pack((order or "<") .. "I2I2I4I8I8I8I4I2I2I2I2I2I2", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
		.. ("\0"):rep(4096)
end

describe("loading an aarch64 kernel", function()
	local files
	before_each(function() files = kernel_files.new "aarch64" end)
	after_each(function() files:close() end)

	local function load(...) return files:load(...) end
	local function refused(...) return files:refused(...) end

	local function loaded(...)
		local boot, memory, message = load(...)
		assert.is_nil(message)
		assert.are.same({ "arm64", RAM, 0 }, { boot.kind, boot.arg, boot.page_table })
		return boot.entry, memory
	end

	-- The device tree in RAM, which must be the plan's for this initramfs; and the seed in it.
	local function check_tree(memory, config, initrd_start, initrd_bytes)
		local kaslr, rng = "kaslr567", "0123456789abcdefghijklmnopqrstuv"
		local options = { initrd_start = initrd_start, initrd_bytes = initrd_bytes, seed = kaslr .. rng }
		local tree = assert(core.arm64_fdt(config, options))
		local blob = memory:read(RAM, #tree)
		local function seed_at(mark)
			local at = assert(tree:find(mark, 1, true))
			return blob:sub(at, at + #mark - 1)
		end
		options.seed = seed_at(kaslr) .. seed_at(rng)
		assert.are.equal(core.arm64_fdt(config, options), blob)
		return options.seed
	end

	it("from its Image", function()
		local config = { memory_mib = 64, vcpus = 2, blocks = 1, cmdline = "hello=world" }
		local kernel = image()
		local entry, memory = loaded(kernel, config)
		local _ <close> = memory
		assert.are.equal(BASE, entry)
		assert.are.equal(kernel, memory:read(BASE, #kernel))
		assert.are.equal(("\0"):rep(4 * MIB), memory:read(BASE + #kernel, 4 * MIB))
		local seed = check_tree(memory, config)
		assert.are.equal(("\0"):rep(0x10000), memory:read(0x401f0000, 0x10000)) -- where the generation ID will be
		-- Random, and not twice the same.
		local _, other <close> = loaded(kernel, config)
		local other_seed = check_tree(other, config)
		assert.are_not.equal(seed:sub(1, 8), other_seed:sub(1, 8))
		assert.are_not.equal(seed:sub(9), other_seed:sub(9))
	end)

	it("at its offset", function()
		for _, case in ipairs {
			{ { text_offset = 0x80000 }, 0x80000 },
			{ { text_offset = 0x210000 }, 0x210000 },
			-- Before 3.17: no size, and the offset in whatever order of bytes.
			{ { text_offset = 0x0000080000000000, image_size = 0 }, 0x80000 },
			{ { text_offset = 0, image_size = 0, flags = 0 }, 0x80000 },
		} do
			local kernel = image(case[1])
			local entry, memory = loaded(kernel)
			assert.are.equal(BASE + case[2], entry)
			assert.are.equal(kernel, memory:read(entry, #kernel))
			memory:close()
		end
	end)

	it("of every page size and placement", function()
		for flags = 0, 14, 2 do
			local entry, memory = loaded(image { flags = flags })
			memory:close()
			assert.are.equal(BASE, entry)
		end
	end)

	it("and an initramfs at the end of RAM", function()
		local initrd = ("initramfs"):rep(1000)
		for mib, top in pairs { [32] = RAM + 32 * MIB, [4096] = RAM + 4 * GIB } do
			local config = { memory_mib = mib }
			local _, memory <close> = loaded(image(), config, initrd)
			assert.are.equal(initrd, memory:read(top - 0x10000, #initrd))
			check_tree(memory, config, top - 0x10000, #initrd)
		end
	end)

	it("and an initramfs within 32 GiB from the GiB where the kernel is", function()
		for text_offset, start in pairs { [0] = RAM, [2 * GIB] = RAM + 2 * GIB, [3 * GIB - 2 * MIB] = RAM + 3 * GIB } do
			local config = { memory_mib = 40 * 1024 }
			local entry, memory = loaded(image { text_offset = text_offset }, config, "initramfs")
			assert.are.equal(BASE + text_offset, entry)
			check_tree(memory, config, start + 32 * GIB - 0x10000, 9)
			memory:close()
		end
		-- A kernel that ends past its window leaves no place at all.
		local message, code = refused(image { image_size = 33 * GIB }, { memory_mib = 40 * 1024 }, "initramfs")
		assert.are.equal("E2BIG", code)
		assert.is_truthy(message:find "initramfs: 9 bytes do not fit between the kernel's end at 0x880200000 and 0x840000000")
	end)

	it("and an initramfs down to the kernel's end, and no further", function()
		-- 16 MiB less 2 for the device tree less 3 for the kernel.
		local config = { memory_mib = 16 }
		local _, memory = loaded(image(), config, ("x"):rep(11 * MIB))
		check_tree(memory, config, BASE + 3 * MIB, 11 * MIB)
		memory:close()
		local message, code = refused(image(), config, ("x"):rep(11 * MIB + 1))
		assert.are.equal("E2BIG", code)
		assert.is_truthy(message:find "11534337 bytes do not fit between the kernel's end at 0x40500000 and 0x41000000")
		assert.are.equal("E2BIG", select(2, refused(image(), config, ("x"):rep(17 * MIB))))
		-- Rounding down must not reach into the kernel.
		local odd = image { image_size = 3 * MIB + 4096 }
		assert.are.equal("E2BIG", select(2, refused(odd, config, ("x"):rep(11 * MIB - 4096))))
		_, memory = loaded(odd, config, ("x"):rep(11 * MIB - 0x10000))
		check_tree(memory, config, BASE + 3 * MIB + 0x10000, 11 * MIB - 0x10000)
		memory:close()
		-- An old kernel says no size: what the file has is kept free at least.
		local old = image({ image_size = 0 }, ("x"):rep(MIB - 64))
		_, memory = loaded(old, config, ("x"):rep(12 * MIB + MIB // 2))
		check_tree(memory, config, BASE + MIB + MIB // 2, 12 * MIB + MIB // 2)
		memory:close()
		assert.are.equal("E2BIG", select(2, refused(old, config, ("x"):rep(12 * MIB + MIB // 2 + 1))))
	end)

	it("and an empty initramfs, which is none", function()
		local _, memory <close> = loaded(image(), {}, "")
		check_tree(memory, { arch = "aarch64" })
	end)

	it("that is none is refused by name", function()
		local bzimage = ("\xcc"):rep(0x1fe) .. "\x55\xaa\xeb\x6aHdrS" .. ("\xcc"):rep(4096)
		local vmlinux = "kernel: an ELF image (a vmlinux?): give the Image that is made from it, arch/arm64/boot/Image"
		for kernel, expected in pairs {
			[""] = "kernel: not an aarch64 Image",
			["#!/bin/sh\n" .. ("x"):rep(3000)] = "kernel: not an aarch64 Image",
			[image { magic = "ARM\x63" }] = "kernel: not an aarch64 Image",
			[bzimage] = "kernel: an x86_64 bzImage, and this machine is aarch64",
			[elf(62)] = "kernel: an x86_64 ELF image, and this machine is aarch64",
			[elf(183)] = vmlinux,
			[elf(3)] = vmlinux,
			[elf(183, ">")] = vmlinux,
			["\x7fELF"] = vmlinux,
			["\x1f\x8b\8\0" .. ("x"):rep(100)] = "kernel: compressed with gzip: unpack it first",
			["\x28\xb5\x2f\xfd" .. ("x"):rep(100)] = "kernel: compressed with zstd: unpack it first",
			["\xfd7zXZ\0" .. ("x"):rep(100)] = "kernel: compressed with xz: unpack it first",
			["MZ\0\0zimg" .. string.pack("<I4I4I4I4", 0xfffffff0, 0xffffffff, 0, 0) .. "zstd22" .. ("\0"):rep(100)] =
				"kernel: an EFI zboot image: unpack its payload first (4294967295 bytes at 4294967280)",
			["MZ\0\0zimg"] = "kernel: not an aarch64 Image",
		} do
			local message, code = refused(kernel)
			assert.are.same({ expected, "ENOEXEC" }, { message, code })
		end
	end)

	it("that cannot start here is refused", function()
		for _, case in ipairs {
			{ { flags = 0xb }, "kernel: a big-endian Image, a little-endian one is needed", "ENOEXEC" },
			{ { flags = -1 }, "kernel: a big-endian Image, a little-endian one is needed", "ENOEXEC" },
			{ { text_offset = 0x80001 }, "kernel: its text_offset 0x80001 is no multiple of a page", "ENOEXEC" },
			{ { text_offset = -1 }, "kernel: its text_offset 0xffffffffffffffff is no multiple of a page", "ENOEXEC" },
			{ { text_offset = -4096 }, "0xfffffffffffff000 are not within 256 MiB of RAM", "E2BIG" },
			{ { text_offset = -BASE }, "0xffffffffbfe00000 are not within 256 MiB of RAM", "E2BIG" },
			{ { text_offset = 254 * MIB, image_size = 1 }, "0xfe00000 are not within 256 MiB of RAM", "E2BIG" },
			{ { text_offset = 254 * MIB - 4096, image_size = 1 },
				"kernel: 20064 bytes at 0x40200000 + 0xfdff000 are not within 256 MiB of RAM", "E2BIG" },
			{ { image_size = 254 * MIB + 1 }, "266338305 bytes at 0x40200000 + 0x0 are not within 256 MiB of RAM", "E2BIG" },
			{ { image_size = -1 }, "18446744073709551615 bytes at 0x40200000 + 0x0 are not within", "E2BIG" },
			{ { image_size = 1 << 63, text_offset = 0x80000 }, "are not within 256 MiB", "E2BIG" },
		} do
			local message, code = refused(image(case[1]))
			assert.is_truthy(message:find(case[2], 1, true), message)
			assert.are.equal(case[3], code)
		end
	end)

	it("fills RAM to its last byte, and no further", function()
		for _, mib in ipairs { 16, 256 } do
			local entry, memory = loaded(image { image_size = (mib - 2) * MIB }, { memory_mib = mib })
			memory:close()
			assert.are.equal(BASE, entry)
			assert.are.equal("E2BIG", select(2, refused(image { image_size = (mib - 2) * MIB + 1 }, { memory_mib = mib })))
		end
		local full = image({ image_size = 1 }, ("x"):rep(14 * MIB - 64))
		local entry, memory = loaded(full, { memory_mib = 16 })
		assert.are.equal("x", memory:read(entry + 14 * MIB - 1, 1))
		memory:close()
		assert.are.equal("E2BIG", select(2, refused(full .. "x", { memory_mib = 16 })))
	end)

	it("whose header is cut short is refused", function()
		local kernel = image()
		for length = 0, 63 do
			local message, code = refused(kernel:sub(1, length))
			assert.are.equal("ENOEXEC", code)
			assert.are.equal(length < 60 and "kernel: not an aarch64 Image" or
				("kernel: an Image cut short: %d bytes"):format(length), message)
		end
	end)

	it("from something that is no file is refused", function()
		local memory <close> = assert(core.memory { arch = "aarch64" })
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, files.folder)))
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, "/dev/zero")))
		scratch.write(files.kernel_path, image())
		assert.are.equal("EINVAL", select(3, core.arch_load(memory, files.kernel_path, "/dev/null")))
	end)
end)
