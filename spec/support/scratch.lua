-- Throw-away folders and the shell, for specs.
local lfs = require "lfs"

local scratch = {}

function scratch.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Runs a command; its standard output without the last newline, or an error with what it said.
function scratch.run(command)
	local pipe = assert(io.popen("exec 2>&1; " .. command))
	local output = pipe:read "a"
	local fine, _, status = pipe:close()
	if not fine then error(("%s: exit status %s\n%s"):format(command, status, output), 2) end
	return (output:gsub("\n$", ""))
end

-- Is the command there?
function scratch.has(name) return (os.execute("command -v " .. name .. " >/dev/null 2>&1")) or false end

function scratch.is_root() return scratch.run "id -u" == "0" end

-- A new folder; the caller removes it.
function scratch.folder() return scratch.run "mktemp -d -t supermachine-spec.XXXXXX" end

function scratch.remove(path)
	assert(path:find("/supermachine-spec.", 1, true), path)
	scratch.run("rm -rf -- " .. scratch.quote(path))
end

function scratch.write(path, data)
	local file = assert(io.open(path, "wb"))
	assert(file:write(data))
	assert(file:close())
end

function scratch.read(path)
	local file = assert(io.open(path, "rb"))
	local data = file:read "a"
	file:close()
	return data
end

-- Paths of all plain files below a folder, relative and sorted.
function scratch.files(path)
	local list = {}
	for name in scratch.run("cd " .. scratch.quote(path) .. " && find . -type f | LC_ALL=C sort"):gmatch "%./([^\n]+)" do
		list[#list + 1] = name
	end
	return list
end

-- How many descriptors this process has open.
function scratch.descriptors()
	local count = 0
	for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
	return count
end

return scratch
