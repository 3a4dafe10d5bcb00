-- Debian's docker-registry on loopback, filled by skopeo.
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "docker-registry", "skopeo", "openssl")

describe("pulling from a registry", function()
	local server, folder, store, images, amd64, arm64

	setup(function()
		if missing then return end
		server = registry.start()
		folder = scratch.folder()
		images = layout.new(folder .. "/images")
		amd64 = images:image { layers = { "base", ("x"):rep(3 << 20) }, config = { Cmd = { "a" } } }
		arm64 = images:image { layers = { "base", "arm" }, architecture = "arm64" }
		amd64.platform = { os = "linux", architecture = "amd64" }
		arm64.platform = { os = "linux", architecture = "arm64" }
		images:tag(amd64, "one")
		images:tag(images:index { amd64, arm64 }, "both")
		images:tag(images:image { layers = { "to be spoilt" } }, "spoilt")
		for _, tag in ipairs { "one", "both", "spoilt" } do
			server:push(("oci:%s:%s"):format(images.path, tag), "some/app:" .. tag, "--all --preserve-digests")
		end
		server:push(("oci:%s:one"):format(images.path), "some/app:docker", "-f v2s2")
		server:push(("oci:%s:both"):format(images.path), "some/app:list", "--all -f v2s2")
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)
	before_each(function()
		store = folder and scratch.run("mktemp -d " .. folder .. "/store.XXXXXX")
	end)

	local function pull(name, options)
		options = options or {}
		options.store = options.store or store
		options.platform = options.platform or "linux/amd64"
		local operation <close> = assert(core.image_pull_begin("http://" .. server.host .. "/" .. name, options))
		return operation:finish()
	end

	check("gives what was pushed", function()
		local image <close>, stats = assert(pull "some/app:one")
		assert.equal(amd64.digest, image:digest())
		assert.same({ "a" }, image:process().cmd)
		assert.same({ fetched_layers = 2, fetched_bytes = 4 + (3 << 20), reused_layers = 0, reused_bytes = 0,
			resumed_bytes = 0, retries = 0 }, stats)
		local layers = image:layers()
		assert.equal(layers[2].digest, layout.digest(scratch.read(store .. "/blobs/sha256/" .. layers[2].digest:sub(8))))
	end)

	check("chooses by platform, and shares layers", function()
		local first <close> = assert(pull "some/app:both")
		local second <close>, stats = assert(pull("some/app:both", { platform = "arm64" }))
		assert.equal(amd64.digest, first:digest())
		assert.equal(arm64.digest, second:digest())
		assert.same({ fetched_layers = 1, fetched_bytes = 3, reused_layers = 1, reused_bytes = 4, resumed_bytes = 0,
			retries = 0 }, stats)
	end)

	check("takes Docker's schema 2", function()
		local image <close> = assert(pull "some/app:docker")
		assert.matches("^application/vnd%.docker%.image%.rootfs%.diff%.tar", image:layers()[1].media_type)
	end)

	-- A registry gives who does not ask for lists the manifest for amd64.
	check("takes Docker's list", function()
		local image <close> = assert(pull("some/app:list", { platform = "arm64" }))
		assert.equal("linux/arm64", image:platform())
		assert.matches("^application/vnd%.docker%.image%.rootfs%.diff%.tar", image:layers()[1].media_type)
	end)

	check("takes a digest, and asks nobody when it is stored", function()
		local name = "some/app@" .. amd64.digest
		assert(pull(name)):close()
		local log = server:log()
		local image <close>, stats = assert(pull(name))
		assert.equal(amd64.digest, image:digest())
		assert.equal(2, stats.reused_layers)
		assert.equal(log, server:log())
	end)

	check("looks a tag up in the store when told to", function()
		assert(pull "some/app:one"):close()
		local log = server:log()
		assert(pull("some/app:one", { policy = "missing" })):close()
		assert(pull("some/app:one", { policy = "never" })):close()
		assert.equal(log, server:log())
	end)

	local function refused(code, pattern, name, options)
		local open = scratch.descriptors()
		local image, message, got = pull(name, options)
		assert.equal(open, scratch.descriptors())
		assert.is_nil(image)
		assert.matches(pattern, message)
		assert.equal(code, got)
		for _, file in ipairs(scratch.files(store)) do
			assert.not_matches("tmp", file)
			assert.not_matches("^refs/", file)
		end
	end

	check("says which tag, digest or repository is missing", function()
		refused("ENOENT", "registry 127.0.0.1:%d+: some/app: none: not there, status 404 %(MANIFEST_UNKNOWN", "some/app:none")
		refused("ENOENT", "other: latest: not there, status 404", "other")
		local digest = "sha256:" .. ("0"):rep(64)
		refused("ENOENT", digest .. ": not there", "some/app@" .. digest)
	end)

	check("refuses an image for another platform", function()
		refused("ENOEXEC", "no image for linux/arm64; there is: linux/amd64", "some/app:one", { platform = "arm64" })
	end)

	check("refuses a blob that was spoilt or cut on the server", function()
		local digest = layout.digest "to be spoilt"
		scratch.write(server:blob_path(digest), "to be Spoilt")
		refused("EBADMSG", "blob " .. digest .. ": its bytes have digest", "some/app:spoilt")
		scratch.write(server:blob_path(digest), "to be")
		refused("EBADMSG", "blob " .. digest .. ": ends after 5 of 12 bytes", "some/app:spoilt")
	end)

	check("refuses a manifest that was spoilt on the server", function()
		local path = server:blob_path(arm64.digest)
		local bytes = scratch.read(path)
		scratch.write(path, (bytes:gsub("vnd.oci.image.layer.v1.tar", "vnd.oci.image.layer.v2.tar", 1)))
		local image, message = pull("some/app@" .. arm64.digest, { platform = "arm64" })
		scratch.write(path, bytes)
		assert.is_nil(image)
		assert.matches("manifest " .. arm64.digest, message)
	end)

	check("says that nobody listens", function()
		local operation <close> = assert(core.image_pull_begin("http://127.0.0.1:1/a", { store = store }))
		local image, message, code = operation:finish()
		assert.is_nil(image)
		assert.equal("ECONNREFUSED", code)
		assert.matches("127.0.0.1:1", message)
	end)

	check("does not speak plain http to another machine unasked", function()
		local operation <close> = assert(core.image_pull_begin("http://192.0.2.1/a", { store = store }))
		local image, message, code = operation:finish()
		assert.is_nil(image)
		assert.equal("EPERM", code)
		assert.matches("insecure", message)
	end)

	check("serves pulls at the same time", function()
		local operations = {}
		for i = 1, 6 do
			operations[i] = assert(core.image_pull_begin("http://" .. server.host .. "/some/app:both",
				{ store = store .. "/" .. i % 2, platform = i % 3 == 0 and "arm64" or "amd64" }))
		end
		for _, operation in ipairs(operations) do
			assert(operation:finish()):close()
			operation:close()
		end
	end)
end)

describe("pulling from a registry with https", function()
	local server, folder, certificate

	setup(function()
		if missing then return end
		folder = scratch.folder()
		certificate = registry.certificate(folder, "DNS:localhost,IP:127.0.0.1")
		server = registry.start { tls = certificate }
		local images = layout.new(folder .. "/images")
		images:tag(images:image(), "t")
		server:push("oci:" .. images.path .. ":t", "app:t")
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)

	local function pull(name, options)
		options.store, options.platform = folder .. "/store", "amd64"
		local operation <close> = assert(core.image_pull_begin(name, options))
		return operation:finish()
	end

	check("trusts the certificates it is given, and no others", function()
		for _, name in ipairs { server.host .. "/app:t", "https://" .. server.host .. "/app:t",
			"docker://localhost:" .. server.port .. "/app:t" } do
			local image, message, code = pull(name, { insecure = true })
			assert.is_nil(image)
			assert.equal("EPROTO", code)
			assert.matches("certificate", message)
			assert(pull(name, { ca_file = certificate.certificate })):close()
		end
		local _, _, code = pull(server.host .. "/app:t", { ca_file = folder .. "/none" })
		assert.equal("EPROTO", code)
	end)
end)
