-- The commands, as a user types them.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local lab = require "spec.support.lab"
local oci_layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

-- Standard output, standard error and the exit status.
local function run(folder, command)
	local out, err = folder:join "out", folder:join "err"
	local _, _, status = os.execute(("%s/supermachine %s >%s 2>%s"):format(build.dir, command, out, err))
	return scratch.read(out), scratch.read(err), status
end

describe("the commands", function()
	it("tell their usage when words are wrong", function()
		local folder <close> = folders.new()
		for command, pattern in pairs {
			["pull"] = "one reference is expected", ["pull --colour=blue x"] = "unknown option %-%-colour",
			["run"] = "an image is expected", ["run --memory lots x"] = "a whole number is expected",
			["bake --vcpus"] = "needs a value", ["exec /tmp"] = "a snapshot and a command are expected",
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
		for _, name in ipairs { "run", "pull", "bake", "exec", "images", "inspect", "rmi", "gc", "doctor", "version" } do
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

describe("supermachine pull", function()
	it("prints the digest on standard output, and nothing else", function()
		local folder <close> = folders.new()
		local layout = oci_layout.new(folder:join "layout")
		layout:tag(layout:image { layers = { ("\0"):rep(1024) } }, "latest")
		local out, err = run(folder, ("pull --store %s oci:%s"):format(folder:join "store", folder:join "layout"))
		assert.matches("^sha256:%x+\n$", out, err)
		assert.are.equal("", err)
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
		local out, err, status = run(folder, ("run --memory 128 %s %s sh -c 'echo out; echo err >&2; exit 7'"):format(store,
			image))
		assert.are.equal("out\n", out)
		assert.are.equal("err\n", err)
		assert.are.equal(7, status)
		scratch.write(folder:join "input", "some\nlines")
		out, err = run(folder, ("run --memory 128 %s -i %s tr a-z A-Z <%s"):format(store, image, folder:join "input"))
		assert.are.equal("SOME\nLINES", out, err)
		local _, _, killed = run(folder, ("run --memory 128 %s %s sh -c 'kill -TERM $$'"):format(store, image))
		assert.are.equal(128 + 15, killed)
	end)

	it("bake prints a snapshot that exec runs in", function()
		local out, err = run(folder, ("bake --memory 128 %s %s -- sh -c 'echo warm >/dev/shm/state'"):format(store,
			lab.reference "busybox"))
		local path = assert(out:match "^(/[^\n]+)\n$", err)
		local text = run(folder, ("exec --env A=1 %s -- sh -c 'cat /dev/shm/state; echo $A'"):format(path))
		assert.are.equal("warm\n1\n", text)
	end)
end)
