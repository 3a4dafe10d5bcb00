-- The commands, as a user types them.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local oci_layout = require "spec.support.oci_layout"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

-- Standard output, standard error and the exit status.  input: a shell command whose output it reads.
local function run(folder, command, input)
	local out, err = folder:join "out", folder:join "err"
	local _, _, status = os.execute(("%s%s/supermachine %s >%s 2>%s"):format(input and input .. " | " or "", build.dir,
		command, out, err))
	return scratch.read(out), scratch.read(err), status
end

describe("the commands", function()
	it("tell their usage when words are wrong", function()
		local folder <close> = folders.new()
		for command, pattern in pairs {
			["pull"] = "one reference is expected", ["pull --colour=blue x"] = "unknown option %-%-colour",
			["run"] = "an image is expected", ["run --memory lots x"] = "a whole number is expected",
			["bake --on-restore"] = "needs a value",
			["exec --hostname 'a b' /tmp true"] = "%-%-hostname: 1 to 64 letters",
			["run --env A x"] = "%-%-env: NAME=VALUE is expected",
			["run --secret token x"] = "%-%-secret: NAME=FILE is expected",
			["exec --secret a=/x --secret /run/secrets/a=/y /tmp true"] = "is named twice",
			["bake --vcpus"] = "needs a value", ["bake --ready-port=0 x"] = "'ready_port': 1 to 65535",
			["bake --ready-ms=1 --ready-stdout=x x"] = "'ready_stdout' and 'ready_ms': one says when",
			["bake --drop-caches=some x"] = "boot, all or none is expected",
			["run --volume data.img x"] = "%-%-volume: FILE:GUEST%[:ro%]%[:size=MIB%] is expected",
			["run --volume data.img:/data:rw x"] = "%-%-volume: FILE:GUEST%[:ro%]%[:size=MIB%] is expected",
			["bake --volume data.img:/a/../b x"] = "option 'volumes'%[1%]: guest: an absolute path",
			["exec --volume a:/data --volume b:/data /tmp true"] = "option 'volumes'%[2%]: guest: /data is there twice",
			["run --volume a:/data:size=0 x"] = "size_mib: 1 to",
			["run -v /tmp x"] = "%-v: HOST:GUEST or HOST:GUEST:ro is expected", ["run -v"] = "%-v needs a value",
			["run -v /tmp:/a:rx x"] = "%-v: HOST:GUEST or", ["exec -v /tmp:/a/../b /tmp true"] = "%-v: guest: an absolute path",
			["bake -v /tmp:/a -v /var:/a x"] = "%-v: guest: /a is there twice",
			["exec /tmp"] = "a snapshot and a command are expected",
		} do
			local out, err, status = run(folder, command)
			assert.are.equal("", out)
			assert.matches(pattern, err)
			assert.matches("usage: supermachine " .. command:match "^%l+", err)
			assert.are.equal(64, status)
		end
	end)

	it("list themselves", function()
		local folder <close> = folders.new()
		local out, _, status = run(folder, "help")
		for _, name in ipairs {
			"run", "pull", "bake", "exec", "images", "inspect", "tag", "rmi", "du", "verify", "gc", "doctor", "version",
		} do
			assert.matches("\n  " .. name, out)
		end
		assert.are.equal(0, status)
	end)

	it("end with 125 and one line when they fail themselves", function()
		local folder <close> = folders.new()
		local out, err, status = run(folder, "pull oci:/nonexistent/layout:latest")
		assert.are.equal("", out)
		assert.matches("^supermachine: [^\n]*/nonexistent/layout[^\n]*\n$", err)
		assert.are.equal(125, status)
	end)
end)

describe("a secret on the command line", function()
	it("is the content of a file, which has to be there and small", function()
		local folder <close> = folders.new()
		for file, what in pairs {
			["/nonexistent/file"] = "No such file", ["/"] = "Is a directory", ["/dev/zero"] = "more than 1048576 bytes",
		} do
			local out, err, status = run(folder, ("exec --secret token=%s /tmp true"):format(file))
			assert.are.same({ "", 125 }, { out, status })
			assert.matches("^supermachine: secret /run/secrets/token: [^\n]*" .. what .. "[^\n]*\n$", err)
		end
	end)
end)

describe("supermachine pull", function()
	it("prints the digest on standard output, and nothing else", function()
		local folder <close> = folders.new()
		local layout = oci_layout.new(folder:join "layout")
		layout:tag(layout:image { layers = { ("\0"):rep(1024) } }, "latest")
		local out, err = run(folder, ("pull --store %s oci:%s"):format(folder:join "store", folder:join "layout"))
		assert.matches("^sha256:%x+\n$", out, err)
		local layer = oci_layout.digest(("\0"):rep(1024))
		-- What is over before anybody looks is told of by its end alone.
		assert.are.equal(layer .. "  done  1.0 KiB\n", (err:gsub("^[^\n]*  fetching  1.0 KiB\n", "")))
		local again, silence = run(folder, ("pull --quiet --store %s oci:%s"):format(folder:join "other",
			folder:join "layout"))
		assert.are.equal(out, again)
		assert.are.equal("", silence)
	end)

	it("draws a line a layer on a terminal, and the digest is still on standard output alone", function()
		if not scratch.has "script" then pending "script(1) is not installed" return end
		local folder <close> = folders.new()
		local layout = oci_layout.new(folder:join "layout")
		layout:tag(layout:image { layers = { ("\0"):rep(1024), ("\0"):rep(3 << 20) } }, "latest")
		local command = ("%s/supermachine pull --store %s oci:%s >%s"):format(build.dir, folder:join "store",
			folder:join "layout", folder:join "out")
		local drawn = scratch.run(("script -qec %s /dev/null </dev/null"):format(scratch.quote(command)))
		assert.matches("^sha256:%x+\n$", scratch.read(folder:join "out"))
		assert.matches("\27%[J%x+  done +1.0 KiB", drawn)
		assert.matches("%x+  done +3.0 MiB\r?\n\27%[%?7h%s*$", drawn)
		assert.is_nil(drawn:match "sha256")
	end)

	it("redraws what is under way, and leaves what has ended", function()
		local progress = require "supermachine.cli.progress"
		local pieces = {}
		local file = { write = function(_, text) pieces[#pieces + 1] = text end, flush = function() end }
		local listen = progress.redrawn(file)
		for _, event in ipairs { { 1, "fetching" }, { 2, "waiting" }, { 1, "done" }, { 2, "reused" } } do
			listen { index = event[1], state = event[2], digest = "sha256:layer" .. event[1], done = 5, total = 5 }
		end
		assert.are.same({
			"\27[?7l\27[Jlayer1  fetching   5 B of 5 B\n\27[?7h",
			"\27[?7l\27[1A\27[Jlayer1  fetching   5 B of 5 B\nlayer2  another pull fetches it  5 B\n\27[?7h",
			"\27[?7l\27[2A\27[Jlayer1  done       5 B\nlayer2  another pull fetches it  5 B\n\27[?7h",
			"\27[?7l\27[1A\27[Jlayer2  there already  5 B\n\27[?7h",
		}, pieces)
	end)

	it("tells of rate and time left", function()
		local progress = require "supermachine.cli.progress"
		assert.are.same({ "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "2048.0 GiB" }, {
			progress.size(0), progress.size(1023), progress.size(1024), progress.size(3 << 19), progress.size(1 << 41),
		})
		local clock, rates = 0, {}
		local line = progress.line(function() return clock end)
		for i, done in ipairs { 0, 1 << 20, 2 << 20, 0, 1 << 20 } do
			rates[i] = line { index = 1, digest = oci_layout.digest "", state = "fetching", done = done, total = 64 << 20 }
			clock = clock + 1000
		end
		assert.is_nil(rates[1]:match "left")
		assert.matches("  1.0 MiB of 64.0 MiB  1.0 MiB/s  1:03 left$", rates[2])
		assert.matches("  2.0 MiB of 64.0 MiB  1.0 MiB/s  1:02 left$", rates[3])
		assert.matches("  0 B of 64.0 MiB$", rates[4])
		assert.matches("1.0 MiB/s", rates[5])
	end)
end)

-- A kernel that is not there ends them after the pull, on any host.
describe("supermachine run and bake", function()
	local folder, layer
	before_each(function()
		folder = folders.new()
		local layout = oci_layout.new(folder:join "layout")
		layout:tag(layout:image { layers = { ("\0"):rep(1024) }, config = { Cmd = { "true" } } }, "t")
		layer = oci_layout.digest(("\0"):rep(1024))
	end)
	after_each(function() folder:close() end)
	local function words(command, options)
		return ("%s --kernel %s --store %s %s oci:%s:t"):format(command, folder:join "absent",
			folder:join("store-" .. command), options or "", folder:join "layout")
	end

	it("tell of what they fetch, and of nothing when nothing is fetched", function()
		for _, command in ipairs { "run", "bake" } do
			local out, err, status = run(folder, words(command))
			assert.same({ "", 125 }, { out, status })
			local failure = err:match "[^\n]*\n$"
			assert.matches("^supermachine: .*/absent", failure)
			assert.equal(layer .. "  done  1.0 KiB\n" .. failure, (err:gsub("^[^\n]*  fetching  1.0 KiB\n", "")))
			assert.equal(failure, (select(2, run(folder, words(command)))))
		end
	end)

	it("are silent about it with -q", function()
		for _, quiet in ipairs { "-q", "--quiet" } do
			for _, command in ipairs { "run", "bake" } do
				local _, err = run(folder, words(command, quiet))
				assert.matches("^supermachine: [^\n]*/absent[^\n]*\n$", err)
				scratch.run("rm -r " .. folder:join("store-" .. command))
			end
		end
	end)

	it("draw a line a layer on a terminal", function()
		if not scratch.has "script" then pending "script(1) is not installed" return end
		for _, command in ipairs { "run", "bake" } do
			local drawn = scratch.run(("script -qec %s /dev/null </dev/null || true"):format(scratch.quote(
				("%s/supermachine %s"):format(build.dir, words(command)))))
			assert.matches("\27%[J" .. layer:sub(8, 19) .. "  done +1.0 KiB\r\n\27%[%?7h", drawn)
		end
	end)
end)

describe("a login on the command line", function()
	local missing = not scratch.has "python3" and "python3 is not installed" or nil
	local folder, server
	setup(function()
		folder = folders.new()
		if not missing then server = registry.start_fake "auth_registry.py" end
	end)
	teardown(function()
		if server then server:stop() end
		folder:close()
	end)

	local count = 0
	-- What `input`, a shell command, prints is the password.
	local function login(input, words, command)
		count = count + 1
		local out, err, status = run(folder, ("%s -q --store %s %s http://%s/basic"):format(command or "pull",
			folder:join("store" .. count), words, server and server.host or "127.0.0.1:9"), input)
		assert.not_matches("sesame", err)
		return out, err, status
	end
	local full = "--username user --password-stdin"

	it("has its password on standard input, in pull, run and bake", function()
		if missing then pending(missing) return end
		for _, input in ipairs { "printf secret", "echo secret", "printf 'secret\\r\\n'" } do
			local out, err, status = login(input, full)
			assert.same({ "", 0 }, { err, status })
			assert.matches("^sha256:%x+\n$", out)
		end
		for command, kernel in pairs { run = " --kernel /absent", bake = " --kernel /absent" } do
			local _, err, status = login("echo secret", full .. kernel, command)
			assert.equal(125, status)
			assert.matches("^supermachine: [^\n]*/absent", err)
		end
	end)

	it("is never named by its password", function()
		if missing then pending(missing) return end
		local out, err, status = login("echo sesame", full)
		assert.same({ "", 125 }, { out, status })
		assert.matches("the login from option 'username' is refused", err)
		for input, what in pairs {
			["true"] = "no password on standard input", ["echo"] = "no password on standard input",
			["printf 'sesame\\nsesame\\n'"] = "the password has control characters",
			["printf 'sesame\\0'"] = "the password has control characters",
			["head -c 70000 /dev/zero | tr '\\0' x"] = "the password has more than 65536 bytes",
		} do
			out, err, status = login(input, full)
			assert.same({ "", ("supermachine: %s\n"):format(what), 125 }, { out, err, status })
		end
	end)

	it("has both of its halves, and standard input for itself", function()
		for words, what in pairs {
			["--username user"] = "come together", ["--password-stdin"] = "come together",
			["--username a:b --password-stdin"] = "option %-%-username: no colon is expected",
			["--username user --password sesame"] = "unknown option %-%-password\n",
		} do
			local _, err, status = login("echo sesame", words)
			assert.equal(64, status)
			assert.matches(what, err)
		end
		local _, err, status = login("echo sesame", full .. " -i", "run")
		assert.equal(64, status)
		assert.matches("standard input is the password's or the process's", err)
	end)
end)

describe("supermachine run, bake and exec #lab", function()
	local folder, store
	setup(function()
		folder = folders.new()
		store = "--store " .. scratch.quote(lab.store())
	end)
	teardown(function() folder:close() end)

	it("run a process of an image with our streams and its exit code", function()
		local image = lab.reference "busybox"
		local out, err, status = run(folder, ("run -q --memory 128 %s %s sh -c 'echo out; echo err >&2; exit 7'"):format(
			store, image))
		assert.are.equal("out\n", out)
		assert.are.equal("err\n", err)
		assert.are.equal(7, status)
		scratch.write(folder:join "input", "some\nlines")
		out, err = run(folder, ("run --memory 128 %s -i %s tr a-z A-Z <%s"):format(store, image, folder:join "input"))
		assert.are.equal("SOME\nLINES", out, err)
		local _, _, killed = run(folder, ("run --memory 128 %s %s sh -c 'kill -TERM $$'"):format(store, image))
		assert.are.equal(128 + 15, killed)
	end)

	-- Nothing is synced by the process itself.
	it("run processes over a volume that stays", function()
		local disk = folder:join "disk.img"
		for turn = 1, 2 do
			local out, err, status = run(folder, ("run --memory 128 --volume %s:/data:size=32 %s %s sh -c '%s'"):format(disk,
				store, lab.reference "busybox", "echo more >>/data/file; cat /data/file; exit 3"))
			assert.are.equal(("more\n"):rep(turn), out, err)
			assert.are.equal(3, status)
		end
		local out, err = run(folder, ("run --memory 128 --volume %s:/data:ro %s %s sh -c 'cat /data/file; echo >/data/file'")
			:format(disk, store, lab.reference "busybox"))
		assert.are.equal("more\nmore\n", out)
		assert.matches("Read%-only file system", err)
		local _, why, status = run(folder, ("run --memory 128 --volume %s:/data:size=16 %s %s true"):format(disk, store,
			lab.reference "busybox"))
		assert.matches("disk%.img: 16777216 bytes are wanted, and it has 33554432: a volume does not shrink", why)
		assert.are.equal(125, status)
	end)

	it("bake prints a snapshot that exec runs in", function()
		local out, err = run(folder, ("bake --memory 128 %s %s -- sh -c 'echo warm >/dev/shm/state'"):format(store,
			lab.reference "busybox"))
		local path = assert(out:match "^(/[^\n]+)\n$", err)
		local text = run(folder, ("exec --env A=1 %s -- sh -c 'cat /dev/shm/state; echo $A'"):format(path))
		assert.are.equal("warm\n1\n", text)
	end)

	it("give a machine a host name, an environment and secrets, after the snapshot's on_restore", function()
		local out, err = run(folder, ("bake --memory 128 --on-restore 'echo hook >/run/hook' %s %s"):format(store,
			lab.reference "busybox"))
		local path = assert(out:match "^(/[^\n]+)\n$", err)
		scratch.write(folder:join "secret", "open\0sesame\n")
		local options = ("--hostname one --env A=1 --env B='2 3' --secret token=%s --secret /srv/secrets/other=%s"):format(
			folder:join "secret", folder:join "secret")
		local shown = "hostname; cat /run/hook; echo \"$A $B\"; cat /run/secrets/token /srv/secrets/other"
		local text, why, status = run(folder, ("exec %s %s -- sh -c %s"):format(options, path, scratch.quote(shown)))
		assert.are.equal("one\nhook\n1 2 3\nopen\0sesame\nopen\0sesame\n", text, why)
		assert.are.equal(0, status)
	end)
end)
