-- Checks that are C programs over the same objects, for what Lua cannot reach.
local build = require "spec.support.build"
local program = {}

--- Run one of the checks of a program at `path` in the build, as "spec/base/check", with arguments, which the shell
-- reads.  It must succeed and say nothing.
function program.check(path, ...)
	local command = ("'%s/%s' %s 2>&1"):format(build.dir, path, table.concat({ ... }, " "))
	local pipe = assert(io.popen(command))
	local output = pipe:read "a"
	local ok, how, status = pipe:close()
	assert(ok, ("%s: %s %s\n%s"):format(command, how, status, output))
	assert(output == "", output)
end

return program
