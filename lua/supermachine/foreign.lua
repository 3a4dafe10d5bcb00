--- Images of another architecture than the machine's: the host's static user-mode emulator, mounted read-only, runs
-- their programs, and the guest's kernel knows by their first bytes which those are (binfmt_misc).
local core = require "supermachine.core"

local foreign = {}

--- Where the guest has the emulator.
foreign.path = "/run/supermachine/emulator"

-- By the names of OCI platforms (GOARCH): qemu's name, and the ELF header's class, byte order and machine (elf(5)).
local architectures <const> = {
	amd64 = { emulator = "x86_64", class = 2, order = 1, machine = 62 },
	["386"] = { emulator = "i386", class = 1, order = 1, machine = 3 },
	arm64 = { emulator = "aarch64", class = 2, order = 1, machine = 183 },
	arm = { emulator = "arm", class = 1, order = 1, machine = 40 },
	riscv64 = { emulator = "riscv64", class = 2, order = 1, machine = 243 },
	ppc64le = { emulator = "ppc64le", class = 2, order = 1, machine = 21 },
	s390x = { emulator = "s390x", class = 2, order = 2, machine = 22 },
	mips64le = { emulator = "mips64el", class = 2, order = 1, machine = 8 },
	loong64 = { emulator = "loongarch64", class = 2, order = 1, machine = 258 },
}
local native <const> = { x86_64 = architectures.amd64, aarch64 = architectures.arm64 }

local function machine_bytes(arch) return string.pack(arch.order == 1 and "<I2" or ">I2", arch.machine) end

-- How an executable begins: any OS ABI, ET_EXEC or ET_DYN.
local function magic(arch)
	local kind = arch.order == 1 and "\2\0" or "\0\2"
	return "\127ELF" .. string.char(arch.class, arch.order, 1) .. ("\0"):rep(9) .. kind .. machine_bytes(arch)
end

local function mask(arch)
	local kind = arch.order == 1 and "\xfe\xff" or "\xff\xfe"
	return ("\xff"):rep(7) .. "\0" .. ("\xff"):rep(8) .. kind .. "\xff\xff"
end

-- What keeps this file from running by itself on the host's architecture (elf(5)); nil: nothing.
local function unfit(path)
	local file <close> = io.open(path, "rb")
	if not file then return "cannot be read" end
	local head = file:read(64) or ""
	local own = native[core.arch]
	if #head < 64 or head:sub(1, 6) ~= "\127ELF" .. string.char(own.class, own.order) or
		head:sub(19, 20) ~= machine_bytes(own) then
		return "is no program of this host's architecture"
	end
	local at = string.unpack("<I8", head, 33)
	local size, count = string.unpack("<I2I2", head, 55)
	if size < 4 or count == 0 or count > 128 or not file:seek("set", at) then return "is damaged" end
	local headers = file:read(size * count) or ""
	if #headers < size * count then return "is damaged" end
	for i = 0, count - 1 do
		if string.unpack("<I4", headers, i * size + 1) == 3 then -- PT_INTERP
			return "needs shared libraries, which the guest does not have: a static one is expected"
		end
	end
end

local function find(name, given)
	if given then
		local wrong = unfit(given)
		if wrong then return nil, ("emulator %s: %s"):format(given, wrong), "ENOEXEC" end
		return given
	end
	local tried = {}
	for _, path in ipairs { "/usr/bin/qemu-" .. name .. "-static", "/usr/bin/qemu-" .. name } do
		local wrong = unfit(path)
		if not wrong then return path end
		tried[#tried + 1] = ("%s %s"):format(path, wrong)
	end
	return nil, table.concat(tried, ", "), "ENOEXEC"
end

--- What runs the programs of an image for `platform` ("linux/arm64") on this host: nil where nothing is needed, else
-- { mount (as in the option 'mounts'), entry (what vm:interpreter_begin takes) }; or false, message, code.  given: a
-- path of the emulator; default qemu-user's.
function foreign.emulator(platform, given)
	local name = platform:match "^linux/([^/]+)"
	local arch = architectures[name or ""]
	if arch == native[core.arch] then return nil end
	if not arch then
		local message = ("an image for %s cannot run here, on %s: no emulator is known"):format(platform, core.arch)
		return false, message, "ENOEXEC"
	end
	local path, why, code = find(arch.emulator, given)
	if not path then
		local message = "an image for %s needs an emulator on %s: install qemu-user-static, or name it (emulator): %s"
		return false, message:format(platform, core.arch, why), code
	end
	return {
		mount = { host = path, guest = foreign.path, readonly = true, cache = "always" },
		entry = { name = "qemu-" .. arch.emulator, path = foreign.path, magic = magic(arch), mask = mask(arch) },
	}
end

return foreign
