-- The POSIX file-system suite itself: what this kernel's own file systems do is right, and every check notices
-- something.
local build = require "spec.support.build"
local file_system = require "spec.support.file_system"
local folders = require "spec.support.folder"
local scratch = require "spec.support.scratch"

local suite <const> = build.dir .. "/spec/fs/posix"
local passed <const> = file_system.passed

describe("the POSIX suite", function()
	local missing = file_system.missing()
	local function check(name, run)
		it(name, function()
			if missing then pending(missing) return end
			local folder <close> = folders.new()
			run(folder)
		end)
	end

	check("passes on ext4, all of it", function(folder)
		passed(file_system.inside(folder, 60, "$suite --entries 2000 m"), 0)
	end)

	check("passes on tmpfs, but for what tmpfs does not have", function(folder)
		local text = file_system.inside(folder, 1, "mkdir t; mount -t tmpfs none t; $suite --entries 2000 t")
		passed(text, 6)
	end)

	check("passes on an overlay", function(folder)
		local text = file_system.inside(folder, 60, [[mkdir m/lower m/upper m/work o
mount -t overlay -o lowerdir=m/lower,upperdir=m/upper,workdir=m/work overlay o
$suite --entries 1000 o]])
		passed(text, 0)
	end)

	check("has no check that could not fail, and none of its mutants lives", function(folder)
		local options = "--entries 60 --rounds 8 --seconds 3"
		local text = file_system.inside(folder, 60, ([[$suite --list-mutants | while read -r mutant groups; do
	echo "mutant $mutant"
	only=
	for group in $groups; do only="$only --only $group"; done
	$suite %s --mutant $mutant $only m || true
done]]):format(options))
		local alive, failed, mutant = {}, {}, nil
		for line in text:gmatch "[^\n]+" do
			local name = line:match "^mutant (%S+)"
			local check_name = line:match "^FAILED (%S+):"
			if name then
				mutant, alive[name] = name, true
			elseif check_name then
				alive[mutant], failed[check_name] = nil, true
			end
		end
		assert.are.same({}, alive)
		assert.is_not_nil(mutant)
		local never = {}
		for name in scratch.run(suite .. " --list"):gmatch "%S+" do
			if not failed[name] then never[#never + 1] = name end
		end
		assert.are.same({}, never)
	end)

	check("refuses names that are none, and counts what it does not run", function(folder)
		assert.is_falsy(os.execute(suite .. " --only perms.nothing " .. folder.path .. " 2>/dev/null"))
		local text = scratch.run(suite .. " --only links --skip links.hard " .. folder.path)
		passed(text, 0)
		assert.is_nil(text:find("links.hard:", 1, true))
	end)
end)
