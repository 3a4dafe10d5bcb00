-- Images of another architecture: which need an emulator, and which files can be one.
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local foreign = require "supermachine.foreign"

local own = { x86_64 = "linux/amd64", aarch64 = "linux/arm64" }
local other = { x86_64 = "linux/arm64", aarch64 = "linux/amd64" }
local machines = { x86_64 = 62, aarch64 = 183 }

-- An ELF file (elf(5)) with program headers of these types.
local function elf(machine, types)
	local head = "\127ELF\2\1\1" .. ("\0"):rep(9) ..
		string.pack("<I2I2I4I8I8I8I4I2I2I2I2I2I2", 3, machine, 1, 0, 64, 0, 0, 64, 56, #types, 64, 0, 0)
	for i, kind in ipairs(types) do types[i] = string.pack("<I4", kind) .. ("\0"):rep(52) end
	return head .. table.concat(types)
end

describe("an image of another architecture", function()
	local folder
	local function file(content)
		local path = folder.path .. "/emulator"
		local out = assert(io.open(path, "wb"))
		out:write(content)
		out:close()
		return path
	end
	before_each(function() folder = folders.new() end)
	after_each(function() folder:close() end)

	it("is told from one of the host's own", function()
		assert.is_nil(foreign.emulator(own[core.arch]))
		assert.is_nil(foreign.emulator(own[core.arch] .. "/v3"))
		assert.is_nil(foreign.emulator(own[core.arch], "/no/such/file"))
	end)

	it("gets a static program of the host's as its emulator", function()
		local path = file(elf(machines[core.arch], { 6, 1, 1 }))
		local found = foreign.emulator(other[core.arch], path)
		assert.same({ host = path, guest = "/run/supermachine/emulator", readonly = true, cache = "always" }, found.mount)
		assert.equal("/run/supermachine/emulator", found.entry.path)
		assert.equal(20, #found.entry.magic)
		assert.equal(20, #found.entry.mask)
		-- The magic is how a program of that architecture begins, whatever the OS ABI, and how none of the host's does.
		local function matches(program)
			for i = 1, 20 do
				if (program:byte(i) ~ found.entry.magic:byte(i)) & found.entry.mask:byte(i) ~= 0 then return false end
			end
			return true
		end
		local theirs = core.arch == "x86_64" and 183 or 62
		assert.is_true(matches(elf(theirs, {})))
		assert.is_true(matches((elf(theirs, {}):gsub("^(.......).", "%1\3"))))
		assert.is_false(matches(elf(machines[core.arch], {})))
		assert.is_false(matches("#!/bin/sh" .. ("\0"):rep(20)))
	end)

	it("does not take what cannot run in the guest", function()
		local function refused(path)
			local found, message, code = foreign.emulator(other[core.arch], path)
			assert.is_false(found)
			assert.equal("ENOEXEC", code)
			assert.truthy(message:find(path, 1, true), message)
			return message
		end
		local theirs = core.arch == "x86_64" and 183 or 62
		assert.matches("shared libraries", refused(file(elf(machines[core.arch], { 6, 3, 1 }))))
		assert.matches("no program of this host's", refused(file(elf(theirs, { 1 }))))
		assert.matches("no program of this host's", refused(file "#!/bin/sh\n"))
		assert.matches("no program of this host's", refused(file ""))
		assert.matches("damaged", refused(file(elf(machines[core.arch], { 1, 1 }):sub(1, 100))))
		assert.matches("cannot be read", refused(folder.path .. "/missing"))
	end)

	it("that nothing is known of is refused", function()
		local found, message, code = foreign.emulator "linux/vax"
		assert.is_false(found)
		assert.equal("ENOEXEC", code)
		assert.matches("linux/vax", message)
	end)
end)
