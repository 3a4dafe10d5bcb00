-- The file server under the POSIX suite and real programs, by this machine's own kernel (spec/fuse/serve.c): all that a
-- guest asks of it but the DAX window, in large numbers, without a guest.
local file_system = require "spec.support.file_system"
local folders = require "spec.support.folder"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"

-- With writeback the kernel takes what is written before the server is asked for room, and counts no blocks.
local modes = {
	{ "strict", "" }, { "auto", "" }, { "always", "" },
	{ "always writeback", "--skip space.used-up --skip sparse.blocks" },
}

local cycles = math.tointeger(tonumber(os.getenv "SUPERMACHINE_CYCLES" or "40"))

describe("the file server, mounted here", function()
	local missing = file_system.missing() or not lfs.attributes "/dev/fuse" and "no /dev/fuse here" or nil

	-- The server's own exit status is looked at, too.
	local function served(folder, mode, lines)
		return file_system.inside(folder, 60, ([[mkdir p
mkfifo said
$build/spec/fuse/serve m p %s >said &
read word <said
(%s) || echo "status $?"
umount p
wait $! || echo "the server: $?"]]):format(mode, lines))
	end

	for _, mode in ipairs(modes) do
		it("passes the POSIX suite: " .. mode[1], function()
			if missing then pending(missing) return end
			local folder <close> = folders.new()
			local text = served(folder, mode[1], "$suite --entries 1000 " .. mode[2] .. " p")
			file_system.passed(text, 0)
			assert.is_nil(text:find "status" or text:find "the server")
		end)

		it("serves git, sqlite and a package tree: " .. mode[1], function()
			if missing then pending(missing) return end
			local lines = {}
			for _, work in ipairs { { "git", "git", 40 }, { "sqlite3", "sqlite", 15 }, { "diff", "tree", 200 } } do
				if scratch.has(work[1]) then
					lines[#lines + 1] = ("mkdir p/w && sh $top/spec/fs/workloads/%s.sh $PWD/p/w %d && rm -r p/w"):format(work[2],
						work[3])
				end
			end
			if #lines == 0 then pending "neither git nor sqlite3 is installed" return end
			local folder <close> = folders.new()
			local text = served(folder, mode[1], table.concat(lines, " && "))
			assert.are.equal(("ok\n"):rep(#lines):sub(1, -2), text)
		end)

		it(("keeps files in use while the session is saved and loaded %d times: %s"):format(cycles, mode[1]), function()
			if missing then pending(missing) return end
			local folder <close> = folders.new()
			local text = file_system.inside(folder, 60, ([[mkdir p
mkfifo said
$build/spec/fuse/serve m p %s >said &
server=$!
exec 5<said
read word <&5
mkdir p/w
: >churn
$suite --churn p/w >churn &
churn=$!
n=0
while [ $n -lt %d ] && kill -0 $churn 2>/dev/null; do
	kill -USR1 $server
	read word <&5
	round=$(wc -l <churn)
	until [ "$(wc -l <churn)" -gt "$round" ] || ! kill -0 $churn 2>/dev/null; do :; done
	n=$((n + 1))
done
touch p/w/stop
wait $churn || true
tail -n 1 churn
echo "$n times"
umount p
wait $server || echo "the server: $?"]]):format(mode[1], cycles))
			assert.are.equal(("stopped\n%d times"):format(cycles), text)
		end)
	end

	it("passes the POSIX suite while the session is saved and loaded before each request", function()
		if missing then pending(missing) return end
		local folder <close> = folders.new()
		-- What has no name any more is not found again.
		local skip = {}
		for _, name in ipairs { "unlinked", "open.temporary", "open.temporary-exclusive", "open.many-files",
			"mmap.outlives-names", "rename.open-files", "links.hard", "xattr.stays", "parallel.replaced-whole",
			"parallel.folders" } do
			skip[#skip + 1] = "--skip " .. name
		end
		local text = file_system.inside(folder, 60, ([[mkdir p
mkfifo said
$build/spec/fuse/serve m p strict reload >said &
server=$!
exec 5<said
read word <&5
$suite --entries 300 %s p || true
umount p
wait $server || echo "the server: $?"]]):format(table.concat(skip, " ")))
		file_system.passed(text, 0)
		assert.is_nil(text:find("the server", 1, true))
	end)
end)
