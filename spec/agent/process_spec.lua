-- Processes over the agent's protocol.  The agent runs as a process of this machine.
local agent = require "spec.support.agent"
local core = require "supermachine.core"
local process = require "supermachine.process"
local scratch = require "spec.support.scratch"

describe("a process in the guest", function()
	local guest
	setup(function() guest = agent.start() end)
	teardown(function() guest:close() end)

	local function exec(argv, options) return process.exec(guest, argv, options) end
	local function sh(script, options) return assert(exec({ "sh", "-c", script }, options)) end
	local function spawn(script, options) return assert(process.spawn(guest, { "sh", "-c", script }, options)) end

	-- Wait until the agent has no processes any more.
	local function no_children()
		local deadline = core.now_ms() + 20000
		while guest:children() > 0 and core.now_ms() < deadline do core.poll({}, 10) end
		return guest:children() == 0
	end

	it("that is to be kept goes on without its handle, and nobody has to read what it writes", function()
		local folder = scratch.folder()
		local script = ("while :; do echo $((i += 1)) >%s/next; mv %s/next %s/count; echo %s; done"):format(folder, folder,
			folder, ("x"):rep(4000))
		local handle = spawn(script, { keep = true, stdin = false })
		local pid = handle:pid()
		local function count()
			local file = io.open(folder .. "/count")
			if not file then return 0 end
			local text = file:read "a"
			file:close()
			return tonumber(text)
		end
		repeat core.poll({}, 5) until count() > 0
		handle:close()
		local before, deadline = count(), core.now_ms() + 20000
		repeat core.poll({}, 5) until count() > before + 100 or core.now_ms() > deadline
		assert.is_true(count() > before + 100)
		assert.are.equal(1, guest:children())
		os.execute("kill -9 " .. pid)
		assert.is_true(no_children())
		-- Its end while it is listened to is told as always.
		handle = spawn("exit 5", { keep = true })
		assert.are.equal(5, assert(handle:wait { timeout_ms = 20000 }).code)
		handle:close()
		scratch.remove(folder)
	end)

	describe("exec", function()
		it("gives output, errors and the exit code", function()
			local result = sh "echo out; echo err >&2; exit 7"
			assert.are.same({ "out\n", "err\n", 7 }, { result.stdout, result.stderr, result.code })
			assert.is_nil(result.signal)
			assert.is_false(result.truncated)
		end)

		it("measures", function()
			local result = sh "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
			assert.is_true(result.duration_ms > 0 and result.user_ms + result.system_ms > 0)
			assert.is_true(result.max_rss_bytes > 100000)
		end)

		it("tells a signal from an exit", function()
			local result = sh "kill -TERM $$"
			assert.are.same({ nil, 15 }, { result.code, result.signal })
		end)

		it("passes a mebibyte and more each way", function()
			local input = ("0123456789abcdef"):rep(256 * 1024) -- 4 MiB
			local result = assert(exec({ "cat" }, { stdin = input }))
			assert.is_true(result.stdout == input)
			assert.are.equal(0, result.code)
			result = sh("cat >/dev/null; head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2", { stdin = input })
			assert.are.same({ 3000000, 2000000 }, { #result.stdout, #result.stderr })
		end)

		it("gives no input when none is asked for", function()
			assert.are.equal("0\n", sh("wc -c").stdout)
		end)

		it("does not mind a process that ignores its input", function()
			local result = sh("exec <&-; echo done", { stdin = ("x"):rep(1 << 20) })
			assert.are.same({ 0, "done\n" }, { result.code, result.stdout })
		end)

		it("sets folder and environment, and adds what is missing", function()
			assert.are.equal("/usr/bin\n", sh("pwd", { cwd = "/usr/bin" }).stdout)
			assert.are.equal("/\n", sh("pwd").stdout)
			local result = assert(exec({ "env" }, { env = { A = "1", B = "x=y z", EMPTY = "" } }))
			local set = {}
			for line in result.stdout:gmatch "[^\n]+" do set[#set + 1] = line end
			table.sort(set)
			assert.are.same({
				"A=1", "B=x=y z", "EMPTY=", "HOME=/root",
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			}, set)
		end)

		it("takes an image's defaults, and lets the caller override them", function()
			local defaults = { env = { "A=1", "B=2" }, workdir = "/usr", user = "" }
			local script = { "sh", "-c", "echo $A$B$PWD" }
			assert.are.equal("12/usr\n", process.exec(guest, script, nil, defaults).stdout)
			assert.are.equal("19/\n", process.exec(guest, script, { env = { B = "9" }, cwd = "/" }, defaults).stdout)
		end)

		it("looks for the program in the process's own PATH", function()
			local folder = scratch.folder()
			scratch.write(folder .. "/only-here", "#!/bin/sh\necho found\n")
			scratch.run("chmod 755 " .. folder .. "/only-here")
			local result = exec({ "only-here" }, { env = { PATH = folder .. ":/usr/bin:/bin" } })
			local lost = { exec { "only-here" } }
			scratch.remove(folder)
			assert.are.equal("found\n", result and result.stdout)
			assert.are.equal("ENOENT", lost[3])
		end)

		it("says what could not be started, and why", function()
			local result, message, code = exec { "no-such-program" }
			assert.are.same({ nil, "run 'no-such-program': No such file or directory", "ENOENT" },
				{ result, message, code })
			assert.are.same({ nil, "folder '/no/folder': No such file or directory", "ENOENT" },
				{ table.unpack({ exec({ "true" }, { cwd = "/no/folder" }) }, 1, 3) })
			assert.are.same({ nil, "run '/etc/passwd': Permission denied", "EACCES" },
				{ table.unpack({ exec { "/etc/passwd" } }, 1, 3) })
		end)

		it("merges standard error when asked", function()
			local result = sh("echo a; echo b >&2; echo c", { merge_stderr = true })
			assert.are.same({ "a\nb\nc\n", "" }, { result.stdout, result.stderr })
		end)

		it("sets limits", function()
			local result = sh("ulimit -n; ulimit -Hn; ulimit -c; ulimit -t",
				{ limits = { open_files = { 100, 200 }, core_bytes = 0, cpu_s = 77 } })
			assert.are.equal("100\n200\n0\n77\n", result.stdout)
			assert.are.equal(9, sh("while :; do :; done", { limits = { cpu_s = 1 } }).signal)
		end)

		it("refuses a memory limit where there are no cgroups", function()
			local _, message, code = exec({ "true" }, { limits = { memory_bytes = 1 << 20 } })
			assert.are.equal("EOPNOTSUPP", code == "ENOTSUP" and "EOPNOTSUPP" or code)
			assert.is_truthy(message:find("start 'true'", 1, true))
		end)

		it("keeps the first bytes of too much output, and lets the process go on", function()
			local result = sh("head -c 1000000 /dev/zero; echo end >&2; exit 3", { max_output_bytes = 1000 })
			assert.are.same({ 1000, "end\n", 3, true },
				{ #result.stdout, result.stderr, result.code, result.truncated })
		end)

		it("ends a process whose time is up, and gives what it wrote", function()
			local result, message, code, partial =
				exec({ "sh", "-c", "echo early; sleep 1000 & sleep 1000" }, { timeout_ms = 300 })
			assert.are.same({ nil, "sh: still running after 300 ms", "ETIMEDOUT" }, { result, message, code })
			assert.are.equal("early\n", partial.stdout)
			assert.is_true(no_children())
		end)

		it("does not wait for what the process left running", function()
			local result = sh "sleep 1000 & echo $!"
			local pid = result.stdout:match "^(%d+)\n$"
			assert.are.equal(0, result.code)
			assert.is_true(os.execute("kill " .. pid))
		end)

		it("takes argv and environment of hundreds of KiB", function()
			local long = ("x"):rep(100000)
			local argv = { "sh", "-c", "echo ${#1} ${#2} ${#3} ${#4} ${#BIG}", "sh", long, long, long, long }
			local result = assert(exec(argv, { env = { BIG = long } }))
			assert.are.equal("100000 100000 100000 100000 100000\n", result.stdout)
			for i = 9, 16 do argv[i] = long end
			local _, message, code = exec(argv)
			assert.are.equal("E2BIG", code)
			assert.is_truthy(message:find("larger than", 1, true))
		end)

		it("raises for misuse", function()
			assert.has_error(function() exec {} end, "argv: empty")
			assert.has_error(function() exec { 1 } end, "argv[1]: string expected, got number")
			assert.has_error(function() exec({ "true" }, { cwdd = "/" }) end, "unknown option 'cwdd'")
			assert.has_error(function() exec({ "true" }, { rows = 70000 }) end, "option 'rows' is out of range")
			assert.has_error(function() exec({ "true" }, { limits = { coffee = 1 } }) end, "limits: unknown limit 'coffee'")
			assert.has_error(function() exec { "tr\0ue" } end, "argv: string holds a NUL byte")
			assert.has_error(function() exec({ "true" }, { env = { ["A=B"] = "" } }) end,
				"env: names are strings without '='")
		end)
	end)

	describe("as a user", function()
		if not scratch.is_root() then return end

		it("takes a name, numbers, and a group", function()
			local script = "id -u; id -g; echo $HOME"
			local name = scratch.run "getent passwd nobody"
			local uid, gid, home = name:match "^nobody:[^:]*:(%d+):(%d+):[^:]*:([^:]*)"
			local expected = ("%s\n%s\n%s\n"):format(uid, gid, home)
			assert.are.equal(expected, sh(script, { user = "nobody" }).stdout)
			assert.are.equal(expected, sh(script, { user = uid }).stdout)
			assert.are.equal("54321\n0\n/\n", sh(script, { user = "54321" }).stdout)
			assert.are.equal("54321\n12345\n/\n", sh(script, { user = "54321:12345" }).stdout)
			local daemon = scratch.run("getent group daemon"):match "^daemon:[^:]*:(%d+)"
			assert.are.equal(uid .. "\n" .. daemon .. "\n", sh("id -u; id -g", { user = "nobody:daemon" }).stdout)
			assert.are.equal("0\n", sh("id -u", { user = "root" }).stdout)
		end)

		it("gives no groups of root's", function()
			assert.are.equal("54321\n", sh("id -G", { user = "7:54321" }).stdout)
		end)

		it("names the user or group that is not there", function()
			assert.are.same({ nil, "user 'no-such-user' is not in /etc/passwd", "EINVAL" },
				{ table.unpack({ exec({ "true" }, { user = "no-such-user" }) }, 1, 3) })
			assert.are.same({ nil, "group 'no-such-group' is not in /etc/group", "EINVAL" },
				{ table.unpack({ exec({ "true" }, { user = "root:no-such-group" }) }, 1, 3) })
		end)
	end)

	describe("spawn", function()
		it("talks both ways while the process runs", function()
			local child <close> = spawn "while read line; do echo \"<$line>\"; done; echo bye >&2; exit 4"
			assert.is_true(child:pid() > 0)
			assert(child:write "one\n")
			assert.are.equal("<one>", child:read "l")
			assert(child:write "two\nthree\n")
			assert.are.equal("<two>\n", child:read "L")
			assert.are.equal("<three>", child:read "l")
			assert(child:close_stdin())
			assert.is_nil(child:read())
			assert.are.equal("bye\n", child:read("a", { stderr = true }))
			assert.are.equal(4, assert(child:wait()).code)
			assert.are.equal(4, assert(child:wait()).code)
		end)

		it("iterates over lines, the last one without an end too", function()
			local child <close> = spawn "printf 'a\\n\\nbc\\nlast'"
			local lines = {}
			for line in child:lines() do lines[#lines + 1] = line end
			assert.are.same({ "a", "", "bc", "last" }, lines)
		end)

		it("reads by number", function()
			local child <close> = spawn "printf abcdef"
			assert.are.equal("abc", child:read(3) .. (child:read(1) and "" or ""))
			assert.are.equal("ef", child:read(100))
			assert.is_nil(child:read(1))
		end)

		it("delivers signals to one that does not read its input", function()
			local child <close> = spawn "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
			assert.are.equal("ready", child:read "l")
			-- More than the window and every pipe hold: the rest stays here.
			local fine, _, code = child:write(("x"):rep(1 << 20), { timeout_ms = 200 })
			assert.are.same({ nil, "ETIMEDOUT" }, { fine, code })
			assert(child:signal "USR1")
			assert.are.equal("caught", child:read "l")
			assert.are.equal(9, assert(child:wait()).code)
		end)

		it("is stopped by the signal that its image names", function()
			for name, number in pairs {
				[""] = 15, SIGHUP = 1, usr1 = 10, ["12"] = 12, ["SIGRTMIN+3"] = 37, ["RTMAX-1"] = 63, SIGRTMIN = 34,
			} do
				local child <close> = assert(process.spawn(guest, { "cat" }, nil, { stop_signal = name }))
				assert(child:signal())
				assert.are.equal(number, assert(child:wait()).signal, name)
			end
			local plain <close> = spawn "exec cat"
			assert(plain:signal())
			assert.are.equal(15, assert(plain:wait()).signal)
			for _, name in ipairs { "SIGNONE", "0", "65", "RTMIN-40", "RTMOD+1", "15x" } do
				local child <close> = assert(process.spawn(guest, { "cat" }, nil, { stop_signal = name }))
				assert.are.same({ nil, ("the image's stop signal '%s' is none"):format(name), "EINVAL" }, { child:signal() })
				assert.has_error(function() child:signal(name) end, ("unknown signal '%s'"):format(name))
			end
		end)

		it("delivers a signal that is sent at once", function()
			local child <close> = assert(core.process_over(guest.path, { argv = { "sleep", "1000" } }))
			assert(child:signal(15))
			local exit
			repeat
				core.poll({ { child:fd(), child:events() } })
				exit = assert(child:step()).exit
			until exit
			assert.are.equal(15, exit.signal)
		end)

		it("says EPIPE to who writes to a process that closed its input", function()
			local child <close> = spawn "exec <&-; echo closed; sleep 1000"
			assert.are.equal("closed", child:read "l")
			local fine, code
			for _ = 1, 100 do
				fine, _, code = child:write(("x"):rep(100000), { timeout_ms = 20000 })
				if not fine then break end
			end
			assert.are.equal("EPIPE", code)
			assert.are.same({ nil, "EPIPE" }, { child:close_stdin(), select(3, child:close_stdin()) })
		end)

		it("kills everything when it is closed", function()
			local child = spawn "sleep 1000 & echo started; wait"
			assert.are.equal("started", child:read "l")
			child:close()
			child:close()
			assert.is_true(no_children())
			assert.has_error(function() child:read() end, "supermachine.process is closed")
			assert.are.equal("supermachine.process (closed)", tostring(child))
		end)

		it("is killed by the guest when its time is up", function()
			local child <close> = spawn("echo x; sleep 1000", { timeout_ms = 200 })
			local result = assert(child:wait())
			assert.are.same({ 9, true }, { result.signal, result.timed_out })
			assert.are.equal("x\n", child:read "a")
		end)

		it("waits only as long as it is told", function()
			local child <close> = spawn "sleep 1000"
			assert.are.same({ nil, "timed out", "ETIMEDOUT" }, { child:wait { timeout_ms = 20 } })
			assert.are.same({ nil, "timed out", "ETIMEDOUT" }, { child:read(nil, { timeout_ms = 20 }) })
			assert(child:signal "KILL")
			assert.are.equal(9, assert(child:wait()).signal)
			local _, _, code = child:signal "TERM"
			assert.are.equal("ESRCH", code)
		end)

		it("says ENOENT, too", function()
			assert.are.same({ nil, "run 'no-such-program': No such file or directory", "ENOENT" },
				{ process.spawn(guest, { "no-such-program" }) })
		end)
	end)

	describe("with a terminal", function()
		it("has its size, and another when it is told", function()
			local child <close> = spawn("stty size; trap 'stty size; exit' WINCH; echo set; while :; do sleep 0.05; done",
				{ tty = true, rows = 33, columns = 101 })
			assert.are.equal("33 101\r", child:read "l")
			assert.are.equal("set\r", child:read "l")
			assert(child:resize(44, 55))
			assert.are.equal("44 55\r", child:read "l")
			assert.are.equal(0, assert(child:wait()).code)
		end)

		it("is the controlling terminal of all three", function()
			local result = sh("test -t 0 && test -t 1 && test -t 2 && echo yes >/dev/tty; echo $TERM", { tty = true })
			assert.are.equal("yes\r\nxterm\r\n", result.stdout)
		end)

		it("reads the end of input, in the middle of a line too", function()
			for _, input in ipairs { "line\n", "line" } do
				local result = sh("stty -echo; cat; echo .", { tty = true, stdin = input })
				assert.is_truthy(result.stdout:find("line", 1, true))
				assert.are.equal(0, result.code)
			end
		end)

		it("gives all that was written before the end", function()
			local result = sh("i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done", { tty = true })
			assert.are.equal(2000 * 12, #result.stdout)
		end)
	end)

	it("leaves nothing behind in the agent", function()
		assert.is_true(no_children())
		local before = guest:descriptors()
		for i = 1, 30 do
			sh("echo " .. i)
			exec { "no-such-program" }
		end
		-- It learns that the host has closed a little after the host has.
		local deadline = core.now_ms() + 20000
		while guest:descriptors() > before and core.now_ms() < deadline do core.poll({}, 10) end
		assert.is_true(guest:descriptors() <= before)
		assert.are.equal("", guest:log())
	end)
end)

describe("an agent that is killed", function()
	it("loses its processes with a clear error, and what they wrote is not lost", function()
		local guest <close> = agent.start()
		local child <close> = assert(process.spawn(guest, { "sh", "-c", "echo here; cat" }))
		while child.stdout.bytes == 0 do
			core.poll({ { child:fd(), child:events() } })
			child:step()
		end
		guest:kill()
		assert.are.equal("here\n", child:read())
		assert.are.same({ nil, "the guest's agent closed the connection", "ECONNRESET" }, { child:read() })
		assert.are.same({ nil, "the guest's agent closed the connection", "ECONNRESET" }, { child:wait() })
		local result, _, code = process.exec(guest, { "true" })
		assert.is_nil(result)
		assert.is_true(code == "ECONNREFUSED" or code == "ECONNRESET") -- refused, or taken while it dies
	end)
end)
