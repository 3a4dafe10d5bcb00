local build = require "spec.support.build"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"
local stores = require "spec.support.store"

local exists = lfs.attributes

-- kind -> how many were removed
local function kinds(report)
	local counts = {}
	for _, item in ipairs(report.removed) do counts[item.kind] = (counts[item.kind] or 0) + 1 end
	return counts
end

-- A script in a process of its own; its first line is its number.
local function start(script, input)
	return assert(io.popen(("exec 2>/dev/null; %s/supermachine %s <%s & echo $!; wait $!"):format(build.dir, script,
		input)))
end

describe("the store's gc", function()
	local store
	before_each(function() store = stores.new() end)
	after_each(function() store.folder:close() end)

	local function gc(options) return assert(store:call("gc", options)) end

	it("removes what no reference leads to, and nothing else", function()
		store:make("a", { "common", "only a" })
		store:make("b", { "common", "only b" })
		local a <close> = store:pull "a"
		local b <close> = store:pull "b"
		local files = { store:rootfs(a), store:rootfs(b) }
		local layers = a:layers()
		local digest, config = a:digest(), a:config_digest()
		a:close()
		b:close()
		assert.same({}, gc().removed)
		assert(store:call("remove", store:name "a"))

		local before = scratch.files(store.path)
		local dry = gc { dry_run = true }
		assert.same({ blob = 3, erofs = 1 }, kinds(dry))
		assert.is_true(dry.dry_run)
		assert.same(before, scratch.files(store.path))

		local report = gc()
		assert.same(dry.removed, report.removed)
		assert.is_true(report.removed_bytes > 0)
		for _, gone in ipairs { digest, config, layers[2].digest } do assert.is_false(store:has(gone), gone) end
		assert.is_true(store:has(layers[1].digest))
		assert.is_nil(exists(files[1][2]))
		for _, path in ipairs(files[2]) do assert.is_not_nil(exists(path), path) end
		assert.same({}, assert(store:call "verify").problems)
		assert.same({}, gc().removed)
	end)

	it("keeps what an open image names, until it is closed", function()
		store:make("a", { "one", "two" })
		local image = store:pull "a"
		local files = store:rootfs(image)
		assert(store:call("remove", store:name "a"))
		local report = gc()
		assert.same({}, report.removed)
		assert.equal(1, report.held)
		for _, path in ipairs(files) do assert.is_not_nil(exists(path)) end
		assert(image:rootfs())
		image:close()
		assert.same({ blob = 4, erofs = 2 }, kinds(gc()))
		assert.same({}, scratch.files(store.path))
	end)

	it("keeps what an image in another process names, and not what a dead one did", function()
		store:make("a", { "one" })
		local script = store.folder:write("hold.lua", ([[
			local sm = require "supermachine"
			local image = assert(sm.image.pull(%q, { store = %q, platform = "amd64" }))
			io.stdout:write "held\n"
			io.stdout:flush()
			io.read "a"
		]]):format(store:name "a", store.path))
		local fifo = store.folder:join "fifo"
		scratch.run("mkfifo " .. fifo)
		local reader <close> = start(script, fifo)
		local pid = reader:read "l"
		local writer <close> = assert(io.open(fifo, "wb"))
		assert.equal("held", reader:read "l")
		assert(store:call("remove", store:name "a"))
		assert.same({}, gc().removed)
		scratch.run("kill -9 " .. pid)
		reader:read "a"
		assert.same({ blob = 3 }, kinds(gc()))
		assert.is_not_nil(writer)
	end)

	it("keeps the EROFS files that a snapshot names", function()
		store:make("a", { "one", "two" })
		local image <close> = store:pull "a"
		local files, digest = store:rootfs(image), image:digest()
		image:close()
		local folder = store:snapshot("baked", digest, { files[1] })
		assert(store:call("remove", store:name "a"))
		local report = gc()
		assert.same({ blob = 4, erofs = 1 }, kinds(report))
		assert.is_not_nil(exists(files[1]))
		assert.is_nil(exists(files[2]))
		assert.is_not_nil(exists(folder .. "/ram"))
		scratch.run("rm -r " .. folder)
		assert.same({ erofs = 1 }, kinds(gc()))
	end)

	it("keeps those of a snapshot that was saved elsewhere, while it is there", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local files = store:rootfs(image)
		image:close()
		assert(store:call("remove", store:name "a"))
		local folder = store:snapshot(nil, "", files, store.folder:join "mine")
		assert.same({ blob = 3 }, kinds(gc()))
		local snapshot <close> = assert(sm.snapshot.open(folder))
		assert.is_not_nil(exists(files[1]))
		snapshot:close()
		scratch.run("rm -r " .. folder)
		assert.same({ erofs = 1, root = 1 }, kinds(gc()))
		assert.same({}, scratch.files(store.path))
	end)

	it("keeps the files of an open snapshot whose folder is gone", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local files, digest = store:rootfs(image), image:digest()
		image:close()
		local folder = store:snapshot("baked", digest, files)
		local snapshot <close> = assert(sm.snapshot.open(folder))
		assert(store:call("remove", store:name "a"))
		scratch.run("rm -r " .. folder)
		assert.same({ blob = 3 }, kinds(gc()))
		assert.is_not_nil(exists(files[1]))
		snapshot:close()
		assert.same({ erofs = 1 }, kinds(gc()))
	end)

	it("removes baked snapshots of forgotten images when asked, unless they are open", function()
		store:make("a", { "one" })
		store:make("b", { "two" })
		local a <close> = store:pull "a"
		local b <close> = store:pull "b"
		local known = store:snapshot("known", b:digest(), store:rootfs(b))
		local open = store:snapshot("open", a:digest(), store:rootfs(a))
		local idle = store:snapshot("idle", a:digest(), store:rootfs(a))
		local own = store:snapshot("own", "", store:rootfs(a))
		a:close()
		assert(store:call("remove", store:name "a"))
		assert.same({ blob = 3 }, kinds(gc()))
		local snapshot <close> = assert(sm.snapshot.open(open))
		local report = gc { snapshots = true }
		assert.same({ { kind = "snapshot", name = idle, bytes = report.removed_bytes } }, report.removed)
		assert.equal(1, report.held)
		for _, path in ipairs { known, open, own } do assert.is_not_nil(exists(path), path) end
		assert.is_nil(exists(idle))
		snapshot:close()
		scratch.run("rm -r " .. own)
		assert.same({ snapshot = 1, erofs = 1 }, kinds(gc { snapshots = true }))
	end)

	it("keeps a baked snapshot that another leans on, in the store or elsewhere", function()
		store:make("a", { "one" })
		local a <close> = store:pull "a"
		local digest, files = a:digest(), store:rootfs(a)
		local parent = store:snapshot("parent", digest, files)
		local child = store:snapshot("child", "", files, store.folder:join "child", parent)
		a:close()
		assert(store:call("remove", store:name "a"))
		assert.same({ blob = 3 }, kinds(gc { snapshots = true }))
		assert.is_not_nil(exists(parent))
		scratch.run("rm -r " .. child)
		local nested = store:snapshot("nested", digest, files, nil, parent)
		assert.same({ snapshot = 1, root = 1 }, kinds(gc { snapshots = true }))
		assert.is_nil(exists(nested))
		assert.same({ snapshot = 1, erofs = 1 }, kinds(gc { snapshots = true }))
		assert.is_nil(exists(parent))
	end)

	it("keeps every EROFS file when it cannot make out what a snapshot needs, and says so", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local files = store:rootfs(image)
		local folder = store:snapshot("baked", image:digest(), files)
		image:close()
		assert(store:call("remove", store:name "a"))
		scratch.write(folder .. "/meta", "something else")
		local report = gc { snapshots = true }
		assert.same({ blob = 3 }, kinds(report))
		assert.same({ folder }, report.unreadable)
		assert.is_not_nil(exists(files[1]))
	end)

	it("removes nothing while a reference or its manifest is damaged", function()
		store:make("a", { "one" })
		store:make("b", { "two" })
		store:pull("b"):close()
		local image <close> = store:pull "a"
		local digest = image:digest()
		image:close()
		assert(store:call("remove", store:name "b"))
		local sound = scratch.read(store:blob(digest))
		scratch.write(store:blob(digest), "{}")
		local before = scratch.files(store.path)
		local none, message, code = store:call "gc"
		assert.same({ nil, "EBADMSG" }, { none, code })
		assert.matches(digest, message, 1, true)
		scratch.write(store:blob(digest), sound)
		local ref = store:files("refs")[1]
		local text = scratch.read(store.path .. "/refs/" .. ref)
		scratch.write(store.path .. "/refs/" .. ref, "garbage")
		none, message, code = store:call "gc"
		assert.same({ nil, "EBADMSG" }, { none, code })
		assert.matches("reference " .. ref, message, 1, true)
		assert.same(before, scratch.files(store.path))
		scratch.write(store.path .. "/refs/" .. ref, text)
		assert.same({ blob = 3 }, kinds(gc()))
	end)

	it("spares what is young, if told to", function()
		store:make("a", { "one", "two" })
		store:pull("a"):close()
		assert(store:call("remove", store:name "a"))
		local old = store:files("blobs/sha256")[1]
		scratch.run(("touch -d '2 hours ago' %s/blobs/sha256/%s"):format(store.path, old))
		local report = gc { min_age_s = 3600 }
		assert.same({ "sha256:" .. old }, { report.removed[1].name, report.removed[2] })
		assert.equal(3, report.young)
		assert.equal(3, #store:files "blobs/sha256")
	end)

	it("removes the temporaries of the dead, and leaves other folders alone", function()
		store:make("a", { "one" })
		store:pull("a"):close()
		local hex = ("0"):rep(64)
		local temporaries = {
			"blobs/sha256/" .. hex .. ".tmp.abcdef", "blobs/sha256/" .. hex .. ".partial", "refs/" .. hex .. ".tmp.abcdef",
			"erofs/sha256-" .. hex .. ".erofs.tmp.abcdef", "snapshots/" .. hex .. ".tmp.abcdef/ram",
			"partial/" .. hex,
		}
		for _, name in ipairs(temporaries) do
			store:make_folder(name:match "^(.*)/")
			scratch.write(store.path .. "/" .. name, "half")
		end
		store:make_folder "other"
		scratch.write(store.path .. "/other/file.tmp.abcdef", "whole")
		local report = gc()
		assert.same({ temporary = #temporaries }, kinds(report))
		assert.is_true(report.removed_bytes > 0)
		local left = scratch.files(store.path)
		assert.equal(3 + 1 + 1, #left)
		assert.equal("other/file.tmp.abcdef", left[4])
	end)

	it("keeps layers that are keyed by chain id", function()
		store:make("a", { "one", "two" })
		local image <close> = store:pull "a"
		local layers = image:layers()
		local chain = require("spec.support.oci_layout").digest(layers[1].diff_id .. " " .. layers[2].diff_id)
		local folder = store:make_folder "erofs"
		for _, hex in ipairs { chain:sub(8), ("0"):rep(64) } do
			scratch.write(("%s/chain-%s.erofs"):format(folder, hex), "x")
		end
		image:close()
		assert.same({ erofs = 1 }, kinds(gc()))
		assert.same({ ("chain-%s.erofs"):format(chain:sub(8)) }, store:files "erofs")
	end)

	it("waits for whoever is between stored and referenced", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local files = store:rootfs(image)
		local folder = store:make_folder "snapshots" .. "/new"
		local fifo = store.folder:join "fifo"
		scratch.run("mkfifo " .. fifo)
		local saver <close> = assert(io.popen(("%s/spec/oci/fake_snapshot %s '' %s <%s"):format(build.dir, folder, files[1],
			fifo)))
		local writer <close> = assert(io.open(fifo, "wb"))
		assert.equal("begun", saver:read "l")
		image:close()
		assert(store:call("remove", store:name "a"))
		local none, _, code = store:call("gc", { timeout_ms = 50 })
		assert.same({ nil, "ETIMEDOUT" }, { none, code })
		assert.equal(3, #store:files "blobs/sha256")
		writer:close()
		saver:read "a"
		assert.same({ blob = 3 }, kinds(gc()))
		assert.is_not_nil(exists(files[1]))
	end)

	it("goes with pulls, bakes, tags and removals at the same time", function()
		for i = 1, 4 do store:make("t" .. i, { "common", "layer " .. i }) end
		sm.run(function()
			for i = 1, 4 do
				sm.go(function()
					for _ = 1, 4 do
						local image <close> = store:pull("t" .. i)
						assert(image:rootfs())
						local tagged = assert(store:call("tag", image:digest(), "tag:" .. i))
						assert.equal(image:digest(), tagged.digest)
						store:call("remove", store:name("t" .. i))
						for _, layer in ipairs(image:layers()) do assert.is_true(store:has(layer.digest)) end
						store:call("remove", "tag:" .. i)
					end
				end)
			end
			sm.go(function() for _ = 1, 12 do gc() end end)
		end)
		assert.same({}, assert(store:call "verify").problems)
		gc()
		assert.same({}, scratch.files(store.path))
	end)

	it("leaves a sound store when it is killed anywhere, and tag and remove do", function()
		for i = 1, 6 do store:make("t" .. i, { "common", "layer " .. i }) end
		local script = store.folder:write("churn.lua", ([[
			local sm = require "supermachine"
			local path = %q
			io.stdout:setvbuf "line"
			for round = 1, 1000 do
				for i = 1, 6 do
					local image <close> = sm.image.pull(%q .. i, { store = path, platform = "amd64" })
					print "pulled"
					if image then
						image:rootfs()
						print "made"
						sm.store.tag(image:digest(), "tag:" .. i, { store = path })
						print "tagged"
					end
					if (round + i) %% 2 == 0 then sm.store.remove(%q .. i, { store = path }) end
					print "removed"
					if (round + i) %% 3 == 0 then sm.store.remove("tag:" .. i, { store = path }) end
					print "untagged"
					if i %% 2 == 0 then sm.store.gc { store = path } end
					print "collected"
				end
			end
		]]):format(store.path, store:name "t", store:name "t"))
		for i = 1, 25 do
			local worker <close> = start(script, "/dev/null")
			local pid = worker:read "l"
			-- It goes on while it is being killed, so the moment is anywhere in the step that follows.
			for _ = 1, i do assert(worker:read "l") end
			scratch.run("kill -9 " .. pid)
			worker:read "a"
			assert.same({}, assert(store:call "verify").problems)
		end
		for i = 1, 6 do
			local image <close> = store:pull("t" .. i)
			assert(image:rootfs())
		end
		assert.same({}, assert(store:call "verify").problems)
		for _, item in ipairs(assert(store:call "list")) do
			assert.is_true(item.complete, item.reference)
			assert(store:call("remove", item.reference))
		end
		gc()
		assert.same({}, scratch.files(store.path))
	end)
end)
