-- Architectures are chosen by file: code elsewhere names none.
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"

local words = { x86_64 = true, amd64 = true, i386 = true, aarch64 = true, arm64 = true }

-- Lua patterns of paths below src/ and lua/ that may.
local allowed = {
	"^src/arch/", "^src/plan/",
	"_x86_64%.[ch]$", "_aarch64%.[ch]$", "/x86_64%.[ch]$", "/aarch64%.[ch]$",
	"^src/hv/hv%.h$", -- the ways to start are an architecture's
	"^src/lua/module%.c$", -- a row for each
	"^src/oci/platform%.c$", -- what OCI calls them
	"^lua/supermachine/foreign%.lua$", -- those of images, which are not the host's
}

local function may_name(path)
	for _, pattern in ipairs(allowed) do
		if path:find(pattern) then return true end
	end
	return false
end

-- The text with comments blanked; a string stays, for a name in one decides as well as any.
local function code_of(path, text)
	local function blank(comment) return (comment:gsub("[^\n]", " ")) end
	if path:match "%.lua$" then return (text:gsub("%-%-%[%[.-%]%]", blank):gsub("%-%-[^\n]*", blank)) end
	return (text:gsub("/%*.-%*/", blank))
end

-- {"path:line: word", ..} below src/ and lua/ of `root`.
local function found_in(root)
	local list = {}
	local command = "cd %s && find src lua -name '*.[ch]' -o -name '*.lua' | sort"
	for path in scratch.run(command:format(scratch.quote(root))):gmatch "[^\n]+" do
		local number = 0
		for line in (code_of(path, scratch.read(root .. "/" .. path)) .. "\n"):gmatch "(.-)\n" do
			number = number + 1
			for word in line:gmatch "[%w_]+" do
				-- `#if` on a compiler's own macro is nowhere allowed.
				local macro = words[word:match "^__(.-)__$"]
				if macro or words[word] and not may_name(path) then list[#list + 1] = path .. ":" .. number .. ": " .. word end
			end
		end
	end
	return list
end

describe("architectures", function()
	it("are named where they belong alone", function() assert.are.same({}, found_in ".") end)

	it("are found where they do not belong", function()
		local folder <close> = folders.new()
		folder:write("src/machine/run.c",
			'/* x86_64 */\nint a; /* arm64,\nx86_64 */ const char *b = "aarch64";\n#include "arch/x86_64/a.h"\n')
		folder:write("src/machine/run_x86_64.c", "int x86_64;\n#if defined(__x86_64__)\n")
		folder:write("src/arch/arch.c", "int aarch64, sm_x86_64;\n")
		folder:write("lua/supermachine/vm.lua", "-- amd64\n--[[\namd64]] local amd64\n")
		assert.are.same({
			"lua/supermachine/vm.lua:3: amd64",
			"src/machine/run.c:3: aarch64",
			"src/machine/run.c:4: x86_64",
			"src/machine/run_x86_64.c:2: __x86_64__",
		}, found_in(folder.path))
	end)
end)
