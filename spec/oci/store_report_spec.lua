local build = require "spec.support.build"
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"
local stores = require "spec.support.store"

local exists = lfs.attributes

describe("sm.store", function()
	local store
	before_each(function() store = stores.new() end)
	after_each(function() store.folder:close() end)

	local function on_disk(path) return exists(path, "blocks") * 512 end

	it("lists references with platform, digest, size and time", function()
		assert.same({}, assert(store:call "list"))
		assert.equal("[]", assert(store:call("list", { json = true })))
		store:make("b", { "one", "two" }, {
			change_config = function(config) config.created = "2024-01-02T03:04:05Z" end,
		})
		store:make("a", { "one" }, { architecture = "arm64" })
		local before = os.time()
		local b <close> = store:pull "b"
		store:pull("a", { platform = "linux/arm64" }):close()
		local list = assert(store:call "list")
		assert.equal(2, #list)
		assert.same({ store:name "a", "linux/arm64", 1 }, { list[1].reference, list[1].platform, list[1].layers })
		local size = #scratch.read(store:blob(b:digest())) + #scratch.read(store:blob(b:config_digest()))
		for _, layer in ipairs(b:layers()) do size = size + layer.size end
		assert.same({ reference = store:name "b", platform = "linux/amd64", digest = b:digest(), size = size, layers = 2,
			created = "2024-01-02T03:04:05Z", time = list[2].time, complete = true }, list[2])
		assert.is_true(list[2].time >= before - 1 and list[2].time <= os.time() + 1)
		assert.same(list, core.json_decode(assert(store:call("list", { json = true }))))
	end)

	it("lists what is damaged or incomplete, and says so", function()
		store:make("a", { "one" })
		store:make("b", { "two" })
		local a <close> = store:pull "a"
		local b <close> = store:pull "b"
		os.remove(store:blob(a:layers()[1].digest))
		scratch.write(store:blob(b:config_digest()), "{}")
		scratch.write(("%s/refs/%s"):format(store.path, ("0"):rep(64)), "garbage")
		local list = assert(store:call "list")
		assert.same({ 3, false, nil }, { #list, list[1].complete, list[1].error })
		assert.matches(b:config_digest(), list[2].error, 1, true)
		assert.equal(store:name "b", list[2].reference)
		assert.same({ nil, true }, { list[3].reference, list[3].error:find(("0"):rep(64), 1, true) ~= nil })
	end)

	it("inspects an image by its name, its digest, or the beginning of that", function()
		store:make("a", { "one", "two" }, { config = { Cmd = { "sh" }, Labels = { k = "v" } } })
		local image <close> = store:pull "a"
		local paths = store:rootfs(image)
		local folder = store:snapshot("baked", image:digest(), paths)
		store:snapshot("other", "", {})
		assert(store:call("tag", store:name "a", "mine"))
		local seen = assert(store:call("inspect", store:name "a"))
		for _, name in ipairs { image:digest(), image:digest():sub(8, 20), "mine:latest", "docker.io/library/mine" } do
			assert.same(seen, assert(store:call("inspect", name)))
		end
		assert.equal(image:digest(), seen.digest)
		assert.equal(image:config_digest(), seen.config_digest)
		assert.equal("linux/amd64", seen.platform)
		assert.same({ "docker.io/library/mine:latest", store:name "a" }, seen.references)
		assert.same(image:process(), seen.process)
		assert.same(image:config(), seen.config)
		assert.equal(2, seen.manifest.schemaVersion)
		for i, layer in ipairs(image:layers()) do
			layer.stored = true
			assert.same(layer, seen.layers[i])
			assert.equal(paths[i]:match "[^/]+$", ("sha256-%s.erofs"):format(layer.diff_id:sub(8)))
		end
		table.sort(paths)
		for i, path in ipairs(paths) do assert.same({ path = path, bytes = on_disk(path) }, seen.erofs[i]) end
		assert.same({ 1, folder }, { #seen.snapshots, seen.snapshots[1].path })
	end)

	it("asks which, when a name means several images", function()
		local amd64, arm64 = store.layout:image(), store.layout:image { architecture = "arm64" }
		store.layout:tag(store.layout:index { amd64, arm64 }, "t")
		store:pull "t":close()
		local other <close> = store:pull("t", { platform = "arm64" })
		assert.equal(other:digest(), assert(store:call("inspect", store:name "t", { platform = "arm64" })).digest)
		local host = scratch.run "uname -m"
		assert.equal(host == "aarch64" and arm64.digest or amd64.digest,
			assert(store:call("inspect", store:name "t")).digest)
		local removed = assert(store:call("remove", store:name "t", { platform = "linux/arm64" }))
		assert.same({ { reference = store:name "t", platform = "linux/arm64", digest = arm64.digest } }, removed)
		assert.equal(1, #assert(store:call "list"))
		assert.same({ nil, "ENOENT" }, { (store:call("remove", store:name "t", { platform = "arm64" })),
			select(3, store:call("remove", store:name "t", { platform = "arm64" })) })
		-- Without a reference it is still there, by its digest, on its own platform.
		local seen = assert(store:call("inspect", arm64.digest))
		assert.same({ "linux/arm64", {} }, { seen.platform, seen.references })
		assert.equal("linux/arm64", assert(store:call("tag", arm64.digest, "again")).platform)
	end)

	it("names an image again, if it is whole and the name can be one", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		assert.same({ reference = "localhost:5000/b:1", platform = "linux/amd64", digest = image:digest() },
			assert(store:call("tag", store:name "a", "localhost:5000/b:1")))
		local again <close> = assert(sm.image.pull("localhost:5000/b:1",
			{ store = store.path, platform = "amd64", policy = "never" }))
		assert.equal(image:digest(), again:digest())
		for name, word in pairs { ["oci:/tmp/x"] = "no path", ["b@" .. image:digest()] = "no digest", ["B:"] = "B:" } do
			local none, message, code = store:call("tag", store:name "a", name)
			assert.same({ nil, "EINVAL" }, { none, code })
			assert.matches(word, message, 1, true)
		end
		os.remove(store:blob(image:layers()[1].digest))
		local none, message, code = store:call("tag", store:name "a", "c")
		assert.same({ nil, "ENOENT" }, { none, code })
		assert.matches(image:layers()[1].digest, message, 1, true)
		none, message, code = store:call("tag", "nobody", "c")
		assert.same({ nil, "ENOENT" }, { none, code })
		assert.matches("'nobody' is not in the image store", message)
	end)

	it("forgets a name, and by a digest all of them", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		for _, name in ipairs { "x", "y" } do assert(store:call("tag", image:digest(), name)) end
		assert.equal("docker.io/library/x:latest", assert(store:call("remove", "x"))[1].reference)
		assert.equal(2, #assert(store:call("remove", image:digest():sub(8, 19))))
		assert.same({}, assert(store:call "list"))
		assert.is_true(store:has(image:digest()))
		local none, message, code = store:call("remove", "x")
		assert.same({ nil, "ENOENT" }, { none, code })
		assert.matches("'x' is not in the image store", message)
	end)

	it("adds up what is used, shared and alone", function()
		store:make("a", { "common", ("a"):rep(100000) })
		store:make("b", { "common", "only b" })
		local a <close> = store:pull "a"
		local b <close> = store:pull "b"
		local a_files, b_files = store:rootfs(a), store:rootfs(b)
		local folder = store:snapshot("baked", a:digest(), a_files)
		scratch.write(store:blob(layout.digest "unused"), "unused")
		scratch.write(store:blob(layout.digest "unused") .. ".tmp.abcdef", "half")
		local shared = on_disk(store:blob(a:layers()[1].digest)) + on_disk(a_files[1])
		local function alone(image, files)
			return on_disk(store:blob(image:digest())) + on_disk(store:blob(image:config_digest()))
				+ on_disk(store:blob(image:layers()[2].digest)) + on_disk(files[2])
		end
		assert(store:call("tag", a:digest(), "again"))
		local du = assert(store:call "du")
		assert.same({ 8, 3, 1, 1 }, { du.blobs.count, du.erofs.count, du.snapshots.count, du.temporaries.count })
		local of = {}
		for _, image in ipairs(du.images) do of[image.digest] = image end
		assert.equal(2, #du.images)
		for image, files in pairs { [a] = a_files, [b] = b_files } do
			local found = of[image:digest()]
			assert.same({ alone(image, files), shared, alone(image, files) + shared },
				{ found.unique_bytes, found.shared_bytes, found.bytes })
		end
		assert.equal(2, #of[a:digest()].references)
		assert.is_true(du.snapshots.bytes >= on_disk(folder .. "/ram") + on_disk(folder .. "/state"))
		assert.equal(on_disk(store:blob(layout.digest "unused")), du.unused_bytes)
		assert.equal(du.blobs.bytes + du.erofs.bytes + du.snapshots.bytes + du.temporaries.bytes, du.bytes)
	end)

	it("raises for misuse", function()
		for _, wrong in ipairs {
			function() sm.store.list { colour = "blue" } end, function() sm.store.inspect() end,
			function() sm.store.gc { min_age_s = "old" } end, function() sm.store.tag "a" end,
			function() sm.store.gc { min_age_s = -1 } end, function() core.store_begin "burn" end,
		} do
			assert.has_error(wrong)
		end
		assert.has_error(function() sm.store.remove(1) end, "name: string expected, got number")
	end)
end)

describe("sm.store.verify", function()
	local store
	before_each(function() store = stores.new() end)
	after_each(function() store.folder:close() end)

	local function damaged()
		store:make("a", { "one", "two" })
		local image <close> = store:pull "a"
		local paths, layers = store:rootfs(image), image:layers()
		local sound = assert(store:call "verify")
		local bytes = 0
		for _, file in ipairs(store:files "blobs/sha256") do
			bytes = bytes + #scratch.read(store.path .. "/blobs/sha256/" .. file)
		end
		assert.same({ blobs = 4, erofs = 2, references = 1, bytes = bytes, problems = {} }, sound)
		-- One bit of a layer, in its middle; an EROFS file cut short; a reference that is garbage.
		local text = scratch.read(store:blob(layers[1].digest))
		scratch.write(store:blob(layers[1].digest), text:sub(1, 600) .. string.char(text:byte(601) ~ 4) .. text:sub(602))
		scratch.write(paths[2], scratch.read(paths[2]):sub(1, -2))
		local ref = ("%s/refs/%s"):format(store.path, ("f"):rep(64))
		scratch.write(ref, "garbage")
		return layers[1].digest, paths[2], ref
	end

	local function problems(report)
		local list = {}
		for i, item in ipairs(report.problems) do list[i] = { item.kind, item.name, item.removed } end
		return list
	end

	it("names what is damaged, and changes nothing", function()
		local layer, erofs, ref = damaged()
		local report = assert(store:call "verify")
		assert.same({ { "blob", layer, false }, { "erofs", erofs, false }, { "reference", ref, false } }, problems(report))
		assert.matches("its bytes have digest sha256:%x+", report.problems[1].problem)
		for _, path in ipairs { store:blob(layer), erofs, ref } do assert.is_not_nil(exists(path)) end
	end)

	it("removes what is damaged when asked, and the next pull and bake make it anew", function()
		local layer, erofs, ref = damaged()
		local report = assert(store:call("verify", { remove = true }))
		assert.same({ { "blob", layer, true }, { "erofs", erofs, true }, { "reference", ref, true } },
			{ table.unpack(problems(report), 1, 3) })
		for _, path in ipairs { store:blob(layer), erofs, ref } do assert.is_nil(exists(path)) end
		local missing = assert(store:call "verify").problems
		assert.same({ "reference", store:name "a" }, { missing[1].kind, missing[1].name })
		assert.matches("1 blobs are missing", missing[1].problem)
		local image <close> = store:pull "a"
		assert(image:rootfs())
		assert.same({}, assert(store:call "verify").problems)
	end)

	it("looks at what one image needs, by name or by a digest that has none", function()
		local layer, erofs = damaged()
		store:make("b", { "two" })
		store:pull("b"):close()
		local digest = assert(store:call("inspect", store:name "a")).digest
		local sound = assert(store:call("verify", { name = store:name "b" }))
		-- The damaged EROFS file is of a layer that both have.
		assert.same({ { "erofs", erofs, false } }, problems(sound))
		assert.same({ 3, 1, 1 }, { sound.blobs, sound.erofs, sound.references })
		assert.same({ { "blob", layer, false }, { "erofs", erofs, false } },
			problems(assert(store:call("verify", { name = digest, platform = "linux/amd64" }))))
		scratch.run("rm " .. store:blob(layer))
		assert(store:call("remove", store:name "a"))
		local report = assert(store:call("verify", { name = digest }))
		assert.same({ { "erofs", erofs, false }, { "reference", digest, false } }, problems(report))
		assert.equal(0, report.references)
		assert.same({ nil, "verify: 'absent' is not in the image store '" .. store.path .. "'", "ENOENT" },
			{ store:call("verify", { name = "absent" }) })
	end)

	it("spares what is held", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local digest = image:digest()
		local paths = store:rootfs(image)
		local snapshot <close> = assert(sm.snapshot.open(store:snapshot("baked", digest, paths)))
		scratch.write(store:blob(digest), "{}")
		scratch.write(paths[1], "")
		local report = assert(store:call("verify", { remove = true }))
		assert.same({ { "blob", digest, false }, { "erofs", paths[1], false } },
			{ table.unpack(problems(report), 1, 2) })
		assert.is_not_nil(exists(paths[1]))
		assert.is_not_nil(snapshot)
	end)

	it("takes its own want of descriptors for no damage", function()
		store:make("a", { "one" })
		local image <close> = store:pull "a"
		local path = store:blob(image:digest())
		scratch.write(path, "{}")
		-- Enough for the first look and the lock, not for the second look.
		local script = store.folder:join "few.lua"
		scratch.write(script, ([[
			local core, files = require "supermachine.core", {}
			repeat
				local file = io.open "/dev/null"
				files[#files + 1] = file
			until not file
			for _ = 1, 3 do table.remove(files):close() end
			local report, message, code = core.store_begin("verify", { store = %q, remove = true }):finish()
			print(report and "verified" or message, code)]]):format(store.path))
		local said = scratch.run(("ulimit -n 64; %s/supermachine %s"):format(build.dir, script))
		assert.is_not_nil(exists(path))
		assert.matches("^verified", said)
	end)
end)
