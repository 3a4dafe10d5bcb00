-- A temporary folder that goes away with the variable that holds it: `local temporary <close> = folder.new()`.
local folder = {}

local methods = {}

function methods:join(name) return self.path .. "/" .. name end

-- Write `text` to a file below the folder, making the folders on the way.
function methods:write(name, text)
	local path = self:join(name)
	assert(os.execute(("mkdir -p '%s'"):format(path:match "^(.*)/")))
	local file <close> = assert(io.open(path, "wb"))
	assert(file:write(text))
	return path
end

function methods:close()
	if self.path then
		os.execute(("rm -rf '%s'"):format(self.path))
		self.path = nil
	end
end

local metatable = { __index = methods, __close = methods.close }

function folder.new()
	local pipe = assert(io.popen "mktemp -d")
	local path = assert(pipe:read "l")
	pipe:close()
	return setmetatable({ path = path }, metatable)
end

return folder
