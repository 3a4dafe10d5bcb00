-- Layers become EROFS files while they come in.
local build = require "spec.support.build"
local core = require "supermachine.core"
local layer = require "spec.support.layer"
local layout = require "spec.support.oci_layout"
local lfs = require "lfs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local missing = not scratch.has "python3" and "python3 is not installed" or nil

describe("a pull with its root file system", function()
	local folder, images, store, layers
	local tars = {}
	setup(function()
		local path = os.tmpname()
		for i = 1, 3 do
			tars[i] = scratch.read(layer.tar(path,
				("import random; add('f%d', data=random.Random(%d).randbytes(3000000)); add('last%d')"):format(i, i, i)))
		end
		os.remove(path)
	end)
	before_each(function()
		folder = scratch.folder()
		images = layout.new(folder .. "/images")
		store = folder .. "/store"
		layers = { table.unpack(tars) }
	end)
	after_each(function() scratch.remove(folder) end)

	local function check(name, run)
		it(name, function()
			if missing then pending(missing) return end
			run()
		end)
	end
	local function made()
		local found = {}
		for _, bytes in ipairs(layers) do
			local path = core.erofs_path(store, layout.digest(bytes))
			if lfs.attributes(path) then
				layer.fsck(path)
				found[#found + 1] = path
			end
		end
		return #found
	end
	-- Keeps the last layer's last byte until `count` layers are made.
	local function serve(count)
		images:tag(images:image { layers = layers }, "t")
		scratch.run("mkdir -p " .. store .. "/erofs")
		return registry.start_fake("gated_registry.py", ("%s %s/erofs %s %d"):format(images.path, store,
			layout.digest(layers[#layers]), count))
	end
	local function pull(server, options)
		local all = { store = store, platform = "linux/amd64", rootfs = true, timeout_ms = 120000 }
		for key, value in pairs(options or {}) do all[key] = value end
		return sm.image.pull("http://" .. server.host .. "/image:t", all)
	end

	check("makes layers while others are still on their way", function()
		local server <close> = serve(2)
		local image <close> = assert(pull(server))
		assert.are.equal(3, made())
		for _, one in ipairs(assert(image:rootfs())) do assert.is_true(one.reused) end
	end)

	check("begins a layer anew when the bytes that were read prove wrong", function()
		local server <close> = serve(2)
		local digest = layout.digest(layers[1])
		local partial = store .. "/partial/" .. digest:match ":(.*)"
		scratch.run("mkdir -p " .. store .. "/partial")
		-- What an earlier pull has left: a tar as far as it goes, but another one, and no tar at all.
		for _, wrong in ipairs { layers[2]:sub(1, 2000000), ("no tar "):rep(100000) } do
			scratch.write(partial, wrong)
			local before = #server:log()
			local image <close> = assert(pull(server))
			local log = server:log():sub(before + 1)
			assert.matches(("GET %s %d\n.*GET %s 0\n"):format(digest, #wrong, digest), log)
			assert.are.equal(3, made())
			image:close()
			scratch.run(("rm -r %s/blobs %s/refs %s/erofs/*"):format(store, store, store))
		end
	end)

	check("that fails ends, and leaves what is whole", function()
		local server <close> = serve(0)
		scratch.run(("truncate -s -1 %s"):format(scratch.quote(images:blob_path(layout.digest(layers[3])))))
		local image, message, code = pull(server, { retries = 0 })
		assert.is_nil(image)
		assert.matches(layout.digest(layers[3]), message)
		assert.equal("EBADMSG", code)
		assert.is_true(made() <= 2)
	end)

	check("names the layer that cannot be made; the image is there all the same", function()
		layers[2] = ("no tar "):rep(1000)
		local server <close> = serve(0)
		local image, message, code = pull(server)
		assert.is_nil(image)
		assert.matches("layer 2 %(" .. layout.digest(layers[2]) .. "%)", message)
		assert.equal("EBADMSG", code)
		assert(pull(server, { rootfs = false, policy = "never" }))
	end)

	check("may be killed at any moment", function()
		local server <close> = serve(0)
		local kills = tonumber(os.getenv "SUPERMACHINE_KILLS") or 8
		local command = ("exec %s/supermachine pull -q --store %s --platform linux/amd64 http://%s/image:t"):format(
			build.dir, store, server.host)
		for _ = 1, kills do
			local pipe = assert(io.popen(("sh -c 'echo $$; %s' 2>&1"):format(command)))
			local pid = pipe:read "l"
			core.poll({}, math.random(0, 150))
			os.execute("kill -9 " .. pid .. " 2>/dev/null")
			pipe:close()
			local sound = assert(sm.store.verify { store = store })
			assert.are.same({}, sound.problems)
			if math.random(3) == 1 then scratch.run("rm -r " .. store .. "/*") end
		end
		local image <close> = assert(pull(server))
		assert.are.equal(3, made())
		assert(sm.store.gc { store = store })
		local left = scratch.run(("find %s -name '*.tmp*' -o -name '*.spool*' -o -path '*/partial/*'"):format(store))
		assert.are.equal("", left)
		assert.are.equal(3, #assert(image:rootfs()))
	end)

	check("from the store alone makes what is missing", function()
		local server <close> = serve(0)
		local first <close> = assert(pull(server, { rootfs = false }))
		assert.are.equal(0, made())
		local image <close> = assert(pull(server, { policy = "never" }))
		assert.are.equal(image:digest(), first:digest())
		assert.are.equal(3, made())
	end)

	check("of a layer twice in one image makes it once", function()
		layers[3] = layers[1]
		local server <close> = serve(0)
		local image <close> = assert(pull(server))
		assert.are.equal(3, #image:layers())
		assert.are.equal(image:rootfs()[1].path, image:rootfs()[3].path)
	end)

	it("from a folder or an archive", function()
		images:tag(images:image { layers = layers }, "t")
		local image <close> = assert(sm.image.pull("oci:" .. images.path .. ":t",
			{ store = store, platform = "linux/amd64", rootfs = true }))
		assert.are.equal(3, made())
		image:close()
	end)
end)
