-- Kernels and initramfs as files, loaded into memory that has no machine around it (core.arch_load).
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"

local Files = {}
Files.__index = Files

-- Write and load; config is that of core.memory, and without `initrd` there is none.  Returns the boot or nil, the
-- memory, and the failure's message and code.
function Files:load(kernel, config, initrd)
	config = config or {}
	config.arch = self.arch
	scratch.write(self.kernel_path, kernel)
	if initrd then scratch.write(self.initrd_path, initrd) end
	local memory = assert(core.memory(config))
	local boot, message, code = core.arch_load(memory, self.kernel_path, initrd and self.initrd_path)
	return boot, memory, message, code
end

-- The same of what must be refused, and leave no descriptor open: message, code.
function Files:refused(...)
	local descriptors = scratch.descriptors()
	local boot, memory, message, code = self:load(...)
	memory:close()
	assert(boot == nil, "nothing was refused")
	assert(descriptors == scratch.descriptors(), "a descriptor was left open")
	return message, code
end

function Files:close() scratch.remove(self.folder) end

local kernel_files = {}

-- For machines of this architecture, in a folder of its own.
function kernel_files.new(arch)
	local folder = scratch.folder()
	return setmetatable({
		arch = arch, folder = folder, kernel_path = folder .. "/kernel", initrd_path = folder .. "/initrd",
	}, Files)
end

return kernel_files
