-- The executable as an interpreter.
local build = require "spec.support.build"
local folder = require "spec.support.folder"
local scratch = require "spec.support.scratch"

local exe = build.dir .. "/supermachine"

describe("the executable", function()
	local temporary
	before_each(function() temporary = folder.new() end)
	after_each(function() temporary:close() end)

	-- Standard output, standard error, exit status.
	local function run(arguments, input)
		local err = temporary:join "stderr"
		local stdin = input and temporary:write("stdin", input) or "/dev/null"
		local pipe = assert(io.popen(("'%s' %s 2>'%s' <'%s'"):format(exe, arguments, err, stdin)))
		local out = pipe:read "a"
		local _, _, status = pipe:close()
		local file <close> = assert(io.open(err))
		return out, file:read "a", status
	end

	it("runs a script with its arguments", function()
		local script = temporary:write("a.lua", "print(arg[0] == ..., select('#', ...), arg[1], arg[2], arg[-1] ~= nil)")
		local out, err, status = run(("'%s' one -e"):format(script))
		assert.are.same({ "false\t2\tone\t-e\ttrue\n", "", 0 }, { out, err, status })
	end)

	it("runs code, in order, then the script", function()
		local script = temporary:write("a.lua", "print(x, ...)")
		assert.are.equal("1\n2\tz\n", (run(("-e 'x=1 print(x)' -e 'x=x+1' '%s' z"):format(script))))
		assert.are.equal("2\n", (run "-e 'print(1+1)'"))
	end)

	it("runs standard input", function()
		assert.are.equal("in\ta\n", (run("- a", "print('in', ...)")))
		assert.are.equal("in\n", (run("", "print('in')")))
	end)

	it("exits with 1 and a traceback when something is raised", function()
		local script = temporary:write("a.lua", "local function f() error 'boom' end\nf()")
		local out, err, status = run(("'%s'"):format(script))
		assert.are.same({ "", 1 }, { out, status })
		assert.truthy(err:find("a.lua:1: boom", 1, true) and err:find("traceback", 1, true), err)
		for _, arguments in ipairs { "-e 'syntax error'", "-e 'error{}'", "/no/such/file.lua", "-x" } do
			out, err, status = run(arguments)
			assert.are.same({ "", 1 }, { out, status })
			assert.are_not.equal("", err)
		end
	end)

	it("exits with what os.exit says", function()
		local _, _, status = run "-e 'os.exit(7)'"
		assert.are.equal(7, status)
	end)

	it("has a prompt that shows values, continues lines and survives errors", function()
		local lines = { "1+1, 'x'", "for i = 1, 2 do", "print(i)", "end", "error 'boom'", "local = 1", "print 'still here'" }
		local out, err, status = run("-i", table.concat(lines, "\n") .. "\n")
		assert.are.equal(0, status)
		assert.truthy(out:find("> 2\tx\n", 1, true), out)
		assert.truthy(out:find(">> >> 1\n2\n", 1, true), out)
		assert.truthy(out:find("still here\n", 1, true), out)
		assert.truthy(err:find("boom", 1, true) and err:find("stdin:1:", 1, true), err)
		out, err = run("-i", "while true do")
		assert.truthy(err:find("unfinished", 1, true), err .. out)
	end)

	it("has supermachine.core inside, and loads other C modules", function()
		local code = [[print(package.preload["supermachine.core"] ~= nil, type(require "lfs"))]]
		assert.are.equal("true\ttable\n", (run(("-e '%s'"):format(code))))
	end)

	it("finds the Lua part from any folder", function()
		local pipe = assert(io.popen(("cd / && '%s' -e 'print(package.path)'"):format(exe)))
		local path = pipe:read "a"
		pipe:close()
		assert.truthy(path:match "^(/[^;]*)/%?%.lua;", path)
		local attributes = require "lfs".attributes(path:match "^(/[^;]*)/%?%.lua;" .. "/supermachine", "mode")
		assert.are.equal("directory", attributes)
	end)

	it("may open as many files as its user may, which hundreds of machines need", function()
		local code = "for line in io.lines '/proc/self/limits' do print(line:match '^Max open files +(%d+) +(%d+)') end"
		local text = scratch.run(("ulimit -n 512; ulimit -S -n 256; %s/supermachine -e \"%s\""):format(build.dir, code))
		assert.matches("512%s+512", text)
	end)

	it("tells its version", function()
		local core = require "supermachine.core"
		assert.truthy((run "-v"):find("supermachine " .. core.version, 1, true))
	end)
end)
