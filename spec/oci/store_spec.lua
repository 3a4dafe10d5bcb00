local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

describe("the image store", function()
	local folder, store, images

	before_each(function()
		folder = scratch.folder()
		store = folder .. "/store"
		images = layout.new(folder .. "/images")
	end)
	after_each(function() scratch.remove(folder) end)

	local function pull(options)
		options = options or {}
		options.store = options.store or store
		options.platform = "linux/amd64"
		local operation <close> = assert(core.image_pull_begin("oci:" .. images.path .. ":t", options))
		return operation:finish()
	end

	it("answers from what is stored, if it may", function()
		local first = images:tag(images:image(), "t")
		local none, message, code = pull { policy = "never" }
		assert.is_nil(none)
		assert.equal("ENOENT", code)
		assert.matches("is not in the image store", message)

		assert(pull { policy = "missing" }):close()
		images.entries = layout.list()
		local second = images:tag(images:image { layers = { "newer" } }, "t")
		for _, policy in ipairs { "missing", "never" } do
			local image <close>, stats = assert(pull { policy = policy })
			assert.equal(first.digest, image:digest())
			assert.equal(2, stats.reused_layers)
		end
		local image <close> = assert(pull { policy = "always" })
		assert.equal(second.digest, image:digest())
		local later <close> = assert(pull { policy = "never" })
		assert.equal(second.digest, later:digest())
	end)

	it("knows a reference per platform", function()
		local amd64, arm64 = images:image(), images:image { architecture = "arm64" }
		images:tag(images:index { amd64, arm64 }, "t")
		assert(pull()):close()
		local operation <close> = assert(core.image_pull_begin("oci:" .. images.path .. ":t",
			{ store = store, platform = "arm64", policy = "never" }))
		local _, _, code = operation:finish()
		assert.equal("ENOENT", code)
	end)

	it("fetches again what was lost or spoilt", function()
		images:tag(images:image(), "t")
		local image <close> = assert(pull())
		local function stored(digest) return store .. "/blobs/sha256/" .. digest:sub(8) end
		scratch.write(stored(image:digest()), "{}")
		scratch.write(stored(image:config_digest()), "{}")
		scratch.write(stored(layout.digest "layer one"), "layer")
		os.remove(stored(layout.digest "layer two"))
		local none, _, code = pull { policy = "never" }
		assert.is_nil(none)
		assert.equal("EBADMSG", code)
		local again <close>, stats = assert(pull { policy = "missing" })
		assert.equal(2, stats.fetched_layers)
		for _, digest in ipairs { image:digest(), image:config_digest(), layout.digest "layer one",
			layout.digest "layer two" } do
			assert.equal(digest, layout.digest(scratch.read(stored(digest))))
		end
		assert.equal(image:digest(), again:digest())
	end)

	it("survives a reference that is garbage", function()
		images:tag(images:image(), "t")
		assert(pull()):close()
		for _, file in ipairs(scratch.files(store .. "/refs")) do scratch.write(store .. "/refs/" .. file, "garbage") end
		local none, _, code = pull { policy = "never" }
		assert.is_nil(none)
		assert.equal("EBADMSG", code)
		assert(pull()):close()
		assert(pull { policy = "never" }):close()
	end)

	it("lies in the user's data folder by default", function()
		images:tag(images:image(), "t")
		local script = ([[
			package.cpath = %q
			local core = require "supermachine.core"
			local image = assert(assert(core.image_pull_begin("oci:%s:t", { platform = "amd64" })):finish())
			print(image:store())]]):format(package.cpath, images.path)
		scratch.write(folder .. "/script.lua", script)
		local exe = require("spec.support.build").dir .. "/supermachine"
		local path = scratch.run(("XDG_DATA_HOME=%s/data %s %s/script.lua"):format(folder, exe, folder))
		assert.equal(folder .. "/data/supermachine", path)
		assert.equal(5, #scratch.files(path))
		assert.matches("^drwx%-%-%-%-%-%-", scratch.run("ls -ld " .. path))
	end)

	it("is shared by pulls at the same time", function()
		local bytes = {}
		for i = 1, 8 do bytes[i] = ("%d"):format(i):rep(100000) end
		images:tag(images:image { layers = bytes }, "t")
		local operations = {}
		for i = 1, 8 do
			operations[i] = assert(core.image_pull_begin("oci:" .. images.path .. ":t", { store = store, platform = "amd64" }))
		end
		for _, operation in ipairs(operations) do
			assert(operation:finish()):close()
			operation:close()
		end
		assert.equal(10 + 1, #scratch.files(store))
	end)

	it("says that it cannot be made", function()
		scratch.write(folder .. "/file", "")
		local none, message, code = pull { store = folder .. "/file" }
		assert.is_nil(none)
		assert.matches("image store: make folder", message)
		assert.equal("ENOTDIR", code)
		local name = ("x"):rep(5000)
		none, message, code = pull { store = "/" .. name }
		assert.is_nil(none)
		assert.matches("path '/xxx", message)
		assert.equal("ENAMETOOLONG", code)
	end)

	it("leaves nothing behind on a full disk", function()
		if not scratch.is_root() then pending "mounting a small tmpfs needs root" return end
		local disk = folder .. "/disk"
		local fine, message = pcall(scratch.run, ("mkdir %s && mount -t tmpfs -o size=256k none %s"):format(disk, disk))
		if not fine then pending("no tmpfs can be mounted: " .. message) return end
		local small, large = ("s"):rep(1000), ("l"):rep(1 << 20)
		images:tag(images:image { layers = { small, large } }, "t")
		local none, why, code = pull { store = disk .. "/store" }
		local files = scratch.files(disk)
		-- A descriptor that was left open keeps the disk busy.
		local free = os.execute("umount " .. disk)
		if not free then scratch.run("umount -l " .. disk) end
		assert.is_true(free)
		assert.is_nil(none)
		assert.equal("ENOSPC", code)
		assert.matches("store blob " .. layout.digest(large), why)
		assert.matches("No space left on device", why)
		assert.same({ "store/blobs/sha256/" .. layout.digest(small):sub(8) }, files)
	end)

	it("leaves nothing behind when a pull is cancelled or dropped", function()
		images:tag(images:image { layers = { ("a"):rep(64 << 20) } }, "t")
		for _, way in ipairs { "cancel", "close" } do
			local operation = assert(core.image_pull_begin("oci:" .. images.path .. ":t",
				{ store = store, platform = "amd64" }))
			operation[way](operation)
			if way == "cancel" then
				local image, message, code = operation:finish()
				assert.is_nil(image)
				assert.equal("ECANCELED", code)
				assert.matches("canceled", message)
				operation:close()
			end
			assert.same({}, scratch.files(store))
		end
	end)
end)
