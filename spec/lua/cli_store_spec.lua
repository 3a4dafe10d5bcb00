-- The commands of the store, as a user types them.
local build = require "spec.support.build"
local core = require "supermachine.core"
local scratch = require "spec.support.scratch"
local stores = require "spec.support.store"

describe("supermachine images, inspect, tag, rmi, du, verify and gc", function()
	local store
	before_each(function() store = stores.new() end)
	after_each(function() store.folder:close() end)

	-- Standard output, standard error and the exit status; `words` follow the command and its --store.
	local function run(command, words)
		local out, err = store.folder:join "out", store.folder:join "err"
		local _, _, status = os.execute(("%s/supermachine %s --store %s %s >%s 2>%s"):format(build.dir, command, store.path,
			words or "", out, err))
		return scratch.read(out), scratch.read(err), status
	end

	it("say what is in the store", function()
		assert.same({ "[]\n", "", 0 }, { run("images", "--json") })
		assert.matches("^REFERENCE +PLATFORM +DIGEST +SIZE +PULLED\n$", (run "images"))
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		assert(store:call("tag", image:digest(), "mine"))
		local out, err, status = run "images"
		assert.same({ "", 0 }, { err, status })
		local digest = image:digest():sub(8, 19)
		assert.matches("\ndocker.io/library/mine:latest +linux/amd64 +" .. digest .. " +[%d.]+ KiB +%d+%-%d+%-%d+ %d+:%d+\n",
			out)
		assert.matches("\n" .. store:name("a"):gsub("%p", "%%%0") .. " +linux/amd64 +" .. digest, out)
		assert.same({ image:digest() .. "\n", "", 0 }, { run("images", "--quiet") })
		local list = assert(core.json_decode((run("images", "--json"))))
		assert.same(assert(store:call "list"), list)
		assert.equal(64, (select(3, run("images", "word"))))
	end)

	it("say what an image wants", function()
		store:make("a", { "one" }, { config = {
			Entrypoint = { "/bin/sh", "-c" }, Cmd = { "echo hi" }, Env = { "A=b c" }, WorkingDir = "/w", User = "nobody",
			StopSignal = "SIGINT", Volumes = { ["/data"] = {} }, ExposedPorts = { ["80/tcp"] = {} }, Labels = { k = "v" },
			Healthcheck = { Test = { "CMD", "true" }, Interval = 3600 * 10 ^ 9 // 1 | 0, Timeout = 1500000, StartPeriod = 0,
				StartInterval = 5000000000, Retries = 3 },
		} })
		local image <close> = store:pull "a"
		local out, err, status = run("inspect", store:name "a")
		assert.same({ "", 0 }, { err, status })
		for name, value in pairs {
			reference = store:name "a", digest = image:digest(), config = image:config_digest(), platform = "linux/amd64",
			entrypoint = "/bin/sh -c", cmd = '"echo hi"', env = '"A=b c"', workdir = "/w", user = "nobody",
			["stop signal"] = "SIGINT", volumes = "/data", ports = "80/tcp", label = "k=v",
			healthcheck = "CMD true, interval_ms 3600000, timeout_ms 1.5, start_period_ms 0, start_interval_ms 5000, retries 3",
		} do
			assert.matches(("\n%s +%s\n"):format(name, (value:gsub("%p", "%%%0"))), "\n" .. out)
		end
		assert.matches("\nlayer +" .. image:layers()[1].digest .. " ", out)
		local seen = core.json_decode((run("inspect", "--json " .. image:digest())))
		assert.same({ image:config(), image:process() }, { seen.config, seen.process })
		out, err, status = run("inspect", "nobody")
		assert.same({ "", 125 }, { out, status })
		assert.matches("^supermachine: [^\n]*'nobody' is not in the image store[^\n]*\n$", err)
		assert.equal(64, (select(3, run "inspect")))
	end)

	it("give an image another name", function()
		store:make("a", { "one" })
		store:pull("a"):close()
		local out, err, status = run("tag", store:name "a" .. " mine:v1")
		assert.same({ "docker.io/library/mine:v1\n", "", 0 }, { out, err, status })
		assert.equal(assert(store:call("inspect", store:name "a")).digest, assert(store:call("inspect", "mine:v1")).digest)
		out, err, status = run("tag", "nobody mine:v2")
		assert.same({ "", 125 }, { out, status })
		assert.matches("^supermachine: [^\n]*'nobody' is not in the image store[^\n]*\n$", err)
		out, err, status = run("tag", store:name "a" .. " Mine")
		assert.same({ "", 125 }, { out, status })
		assert.matches("^supermachine: [^\n]*Mine[^\n]*\n$", err)
		assert.equal(64, (select(3, run("tag", "mine:v1"))))
	end)

	it("say what space is taken", function()
		assert.matches("^KIND +COUNT +SIZE\nblobs +0 +0 B\nerofs +0 .*\nunused +0 B\n$", (run "du"))
		store:make("a", { "one", "two" })
		store:make("b", { "one" })
		for _, name in ipairs { "a", "b" } do store:pull(name):close() end
		local out, err, status = run "du"
		assert.same({ "", 0 }, { err, status })
		assert.matches("\nblobs +6 +[%d.]+ KiB\n", out) -- one of the three layers is there once
		assert.matches("\nDIGEST +SIZE +UNIQUE +SHARED +REFERENCE\n", out)
		for _, row in ipairs(assert(store:call "du").images) do
			local table_text = require "supermachine.cli.table"
			assert.matches(("\n%s +%s +%s +%s +%s\n"):format(row.digest:sub(8, 19), table_text.bytes(row.bytes),
				table_text.bytes(row.unique_bytes), table_text.bytes(row.shared_bytes),
				(row.references[1]:gsub("%p", "%%%0"))), out)
			assert.is_true(row.shared_bytes > 0)
		end
		assert.same(assert(store:call "du"), core.json_decode((run("du", "--json"))))
		assert.equal(64, (select(3, run("du", "word"))))
	end)

	it("name what is damaged", function()
		store:make("a", { "one", "two" })
		store:make("b", { "two", "three" })
		local image <close> = store:pull "a"
		local other <close> = store:pull "b"
		local out, err, status = run "verify"
		assert.same({ "", 0 }, { out, status })
		assert.matches("^7 blobs %([%d.]+ KiB%), 0 EROFS files and 2 references: sound\n$", err)
		assert.matches("^4 blobs %(.*, 0 EROFS files and 1 references: sound\n$", (select(2, run("verify", store:name "a"))))

		local layer = image:layers()[1].digest
		scratch.write(store:blob(layer), "rotten")
		out, err, status = run("verify", store:name "a")
		assert.equal(1, status)
		assert.matches("^blob\t" .. layer .. "\tits bytes have digest sha256:%x+\n", out)
		assert.matches(": %d damaged\n$", err)
		assert.equal(out, (run "verify"))
		out, err, status = run("verify", other:digest():sub(8, 19))
		assert.same({ "", 0 }, { out, status }, err)
		local text, _, code = run("verify", "--json " .. image:digest())
		assert.same({ assert(store:call("verify", { name = image:digest() })), 1 }, { core.json_decode(text), code })

		out, err, status = run("verify", "nobody")
		assert.same({ "", 125 }, { out, status })
		assert.matches("^supermachine: verify: 'nobody' is not in the image store[^\n]*\n$", err)
		for _, words in ipairs { "one two", "--platform linux/amd64" } do
			assert.equal(64, (select(3, run("verify", words))))
		end
		image:close()
		out, err, status = run("verify", "--remove " .. store:name "a")
		assert.equal(1, status, err)
		assert.matches("^blob\t" .. layer .. "\t[^\n]*; removed\n", out)
		out, err, status = run("verify", store:name "a")
		assert.equal(1, status, err)
		assert.matches("^reference\t[^\n]*1 blobs are missing\n$", out)
	end)

	it("print no control characters of an image's", function()
		store:make("a", { "one" }, { config = { WorkingDir = "/\127[31m\u{9b}1m", User = "\u{e9}" } })
		store:pull("a"):close()
		local out = run("inspect", store:name "a")
		assert.matches("\nworkdir +/%?%[31m%?1m\n", out)
		assert.matches("\nuser +\u{e9}\n", out)
	end)

	it("forget and free", function()
		store:make("a", { "one" })
		store:make("b", { "two" })
		store:pull("a"):close()
		store:pull("b"):close()
		local out, err, status = run("rmi", ("%s nobody %s"):format(store:name "a", store:name "b"))
		assert.same({ store:name "a" .. "\n" .. store:name "b" .. "\n", 125 }, { out, status })
		assert.matches("'nobody' is not in", err)
		local before = scratch.files(store.path)
		local dry
		dry, err, status = run("gc", "--dry-run")
		assert.same({ 6, 0 }, { select(2, dry:gsub("blob\tsha256:%x+\n", "")), status })
		assert.matches("^would free [%d.]+ KiB\n$", err)
		assert.same(before, scratch.files(store.path))
		assert.equal("", (run("gc", "--min-age 3600")))
		out, err, status = run "gc"
		assert.same({ dry, 0 }, { out, status })
		assert.matches("^freed [%d.]+ KiB\n$", err)
		assert.same({}, scratch.files(store.path))
		local report = core.json_decode((run("gc", "--json")))
		assert.same({ 0, {}, false }, { report.removed_bytes, report.removed, report.dry_run })
		assert.equal(64, (select(3, run("gc", "--min-age -1"))))
		assert.equal(64, (select(3, run "rmi")))
	end)
end)
