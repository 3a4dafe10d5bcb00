-- A temporary folder that goes away with the variable that holds it: `local temporary <close> = folder.new()`.
local scratch = require "spec.support.scratch"

local folder = {}

local methods = {}

function methods:join(name) return self.path .. "/" .. name end

-- Write `text` to a file below the folder, making the folders on the way.
function methods:write(name, text)
	local path = self:join(name)
	scratch.run("mkdir -p " .. scratch.quote(path:match "^(.*)/"))
	scratch.write(path, text)
	return path
end

function methods:close()
	if self.path then scratch.remove(self.path) end
	self.path = nil
end

local metatable = { __index = methods, __close = methods.close }

function folder.new() return setmetatable({ path = scratch.folder() }, metatable) end

return folder
