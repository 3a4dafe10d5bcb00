local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"

describe("pulling an OCI layout", function()
	local folder, store, images
	local other_architecture = "s390x"

	before_each(function()
		folder = scratch.folder()
		store = folder .. "/store"
		images = layout.new(folder .. "/images")
	end)
	after_each(function() scratch.remove(folder) end)

	local function pull(tag, options)
		options = options or {}
		options.store = options.store or store
		options.platform = options.platform or "linux/amd64"
		local operation <close> = assert(core.image_pull_begin("oci:" .. images.path .. (tag or ""), options))
		return operation:finish()
	end

	local function refused(code, pattern, tag, options)
		local open = scratch.descriptors()
		local image, message, name = pull(tag, options)
		assert.equal(open, scratch.descriptors())
		assert.is_nil(image)
		assert.matches(pattern, message)
		assert.equal(code, name)
		assert.matches("^pull 'oci:", message)
		for _, file in ipairs(scratch.files(store)) do
			assert.not_matches("tmp", file)
			assert.not_matches("^refs/", file)
			local hex = file:match "^blobs/sha256/(.*)"
			assert.equal(hex, core.sha256(scratch.read(store .. "/" .. file)))
		end
	end

	describe("that is sound", function()
		it("takes every media type of a layer, whatever it says of the packing", function()
			local types = { "application/octet-stream" }
			for _, base in ipairs { "oci.image.layer.v1.tar", "oci.image.layer.nondistributable.v1.tar",
				"docker.image.rootfs.diff.tar", "docker.image.rootfs.foreign.diff.tar" } do
				for _, packing in ipairs { "", "gzip", "zstd", "bzip2", "xz" } do
					local mark = packing == "" and "" or base:find "^oci" and "+" or "."
					types[#types + 1] = "application/vnd." .. base .. mark .. packing
				end
			end
			local layers = {}
			for i in ipairs(types) do layers[i] = "layer " .. i end
			images:tag(images:image { layers = layers, change_manifest = function(m)
				for i, media_type in ipairs(types) do m.layers[i].mediaType = media_type end
			end }, "t")
			local image <close> = assert(pull ":t")
			for i, layer in ipairs(image:layers()) do assert.equal(types[i], layer.media_type) end
		end)

		it("gives the image and stores each blob once", function()
			local manifest = images:tag(images:image {
				layers = { "one", "two", "one" },
				config = { Entrypoint = { "/bin/sh" }, Cmd = { "-c", "echo hi" }, Env = { "A=1", "B=" },
					WorkingDir = "/w", User = "7:8", StopSignal = "SIGINT", Labels = { k = "v" } },
			}, "t")
			local image <close>, stats = assert(pull ":t")
			assert.equal(manifest.digest, image:digest())
			assert.equal("oci:" .. images.path .. ":t", image:reference())
			assert.equal("linux/amd64", image:platform())
			assert.equal(store, image:store())
			assert.same({ fetched_layers = 2, reused_layers = 1, fetched_bytes = 6, reused_bytes = 3, resumed_bytes = 0,
				retries = 0 }, stats)

			local layers = image:layers()
			assert.equal(3, #layers)
			for i, bytes in ipairs { "one", "two", "one" } do
				assert.same({ digest = layout.digest(bytes), diff_id = layout.digest(bytes), size = 3,
					media_type = layout.LAYER }, layers[i])
			end
			assert.same({ entrypoint = { "/bin/sh" }, cmd = { "-c", "echo hi" }, env = { "A=1", "B=" }, workdir = "/w",
				user = "7:8", stop_signal = "SIGINT", volumes = {}, exposed_ports = {}, labels = { k = "v" } },
				image:process())
			assert.equal("v", image:config().config.Labels.k)
			assert.equal("layers", image:config().rootfs.type)

			local blobs = 0
			for _, file in ipairs(scratch.files(store)) do
				local hex = file:match "^blobs/sha256/(.*)"
				if hex then
					blobs = blobs + 1
					assert.equal(hex, core.sha256(scratch.read(store .. "/" .. file)))
				end
			end
			assert.equal(4, blobs) -- two layers, config, manifest
			assert.equal(image:config_digest():sub(8), core.sha256(scratch.read(
				store .. "/blobs/sha256/" .. image:config_digest():sub(8))))
		end)

		it("fetches nothing the second time, and writes nothing", function()
			images:tag(images:image(), "t")
			assert(pull ":t"):close()
			local before = scratch.run("cd " .. store .. " && find . -printf '%p %i %T@\\n' | sort")
			local image <close>, stats = assert(pull ":t")
			assert.equal(0, stats.fetched_layers)
			assert.equal(2, stats.reused_layers)
			assert.equal(2, #image:layers())
			assert.equal(before, scratch.run("cd " .. store .. " && find . -printf '%p %i %T@\\n' | sort"))
		end)

		it("takes the only image when no tag is given", function()
			local manifest = images:tag(images:image(), "t")
			local image <close> = assert(pull())
			assert.equal(manifest.digest, image:digest())
		end)

		it("takes a digest, and a tag with colons and slashes", function()
			images:tag(images:image { layers = { "a" } }, "other")
			local manifest = images:tag(images:image { layers = { "b" } }, "localhost/bb:1")
			local by_tag <close> = assert(pull ":localhost/bb:1")
			local by_digest <close> = assert(pull("@" .. manifest.digest))
			assert.equal(manifest.digest, by_tag:digest())
			assert.equal(manifest.digest, by_digest:digest())
		end)

		it("reads Docker's media types, and a manifest without any", function()
			images:tag(images:image { docker = true }, "docker")
			images:tag(images:image { layers = { "z" }, change_manifest = function(m) m.mediaType = nil end }, "none")
			assert(pull ":docker"):close()
			assert(pull ":none"):close()
		end)

		it("takes null for what is not said, and an image without layers", function()
			images:tag(images:image {
				layers = {},
				change_config = function()
					return '{"os":"linux","architecture":"amd64","config":{"Cmd":null,"Env":null,"User":null},'
						.. '"rootfs":{"type":"layers","diff_ids":null}}'
				end,
			}, "t")
			local image <close> = assert(pull ":t")
			assert.same({ entrypoint = {}, cmd = {}, env = {}, workdir = "", user = "", stop_signal = "", volumes = {},
				exposed_ports = {}, labels = {} }, image:process())
			assert.same({}, image:layers())
		end)

		it("keeps the image open until it is closed, and then raises", function()
			images:tag(images:image(), "t")
			local image = assert(pull ":t")
			assert.matches("sha256:", tostring(image))
			image:close()
			image:close()
			assert.matches("closed", tostring(image))
			assert.has_error(function() image:digest() end, "supermachine.image is closed")
		end)
	end)

	describe("of several platforms", function()
		it("chooses by platform, through nested indexes", function()
			local amd64 = images:image { layers = { "amd" } }
			local arm64 = images:image { layers = { "arm" }, architecture = "arm64" }
			amd64.platform = { os = "linux", architecture = "amd64" }
			arm64.platform = { os = "linux", architecture = "arm64", variant = "v8" }
			images:tag(images:index { images:index { arm64, amd64 } }, "t")
			local first <close> = assert(pull(":t", { platform = "linux/amd64" }))
			local second <close> = assert(pull(":t", { platform = "aarch64" }))
			assert.equal(amd64.digest, first:digest())
			assert.equal(arm64.digest, second:digest())
			assert.equal("linux/arm64", second:platform())
		end)

		it("does not take a variant that may not run, unless asked for", function()
			local newer = images:image { layers = { "v3" } }
			local plain = images:image { layers = { "v1" } }
			newer.platform = { os = "linux", architecture = "amd64", variant = "v3" }
			plain.platform = { os = "linux", architecture = "amd64" }
			images:tag(images:index { newer, plain }, "t")
			images:tag(images:index { newer }, "newer")
			local image <close> = assert(pull ":t")
			assert.equal(plain.digest, image:digest())
			local wanted <close> = assert(pull(":t", { platform = "linux/amd64/v3" }))
			assert.equal(newer.digest, wanted:digest())
			local none, message = pull ":newer"
			assert.is_nil(none)
			assert.matches("there is: linux/amd64/v3", message, 1, true)
		end)

		it("passes over attestations and artifacts", function()
			local image = images:image()
			local attestation = images:image {
				change_manifest = function(m) m.config.mediaType = "application/vnd.in-toto+json" end,
			}
			local unknown = { digest = attestation.digest, size = attestation.size, mediaType = attestation.mediaType,
				platform = { os = "unknown", architecture = "unknown" } }
			images:tag(images:index({ unknown, attestation, image }, layout.DOCKER_LIST), "t")
			local found <close> = assert(pull ":t")
			assert.equal(image.digest, found:digest())
		end)

		it("lists what there is when nothing fits", function()
			local one = images:image { architecture = "arm64", layers = { "a" } }
			local two = images:image { architecture = other_architecture, layers = { "b" } }
			one.platform = { os = "linux", architecture = "arm64" }
			images:tag(images:index { one, two }, "t")
			refused("ENOEXEC", "no image for linux/amd64; there is: linux/arm64, linux/" .. other_architecture, ":t")
		end)

		it("asks the config of an image that says no platform", function()
			images:tag(images:image { os = "windows" }, "t")
			refused("ENOEXEC", "no image for linux/amd64; there is: windows/amd64", ":t")
		end)

		it("believes the config, not the index", function()
			local wrong = images:image { architecture = "arm64" }
			wrong.platform = { os = "linux", architecture = "amd64" }
			images:tag(images:index { wrong }, "t")
			refused("ENOEXEC", "there is: linux/arm64", ":t")
		end)
	end)

	describe("that is bad", function()
		local function spoil(digest, change)
			local path = images:blob_path(digest)
			scratch.write(path, change(scratch.read(path)))
		end
		local function flip(bytes) return string.char(bytes:byte(1) ~ 1) .. bytes:sub(2) end
		local function cut(bytes) return bytes:sub(1, -2) end

		it("refuses a layer with another digest", function()
			images:tag(images:image(), "t")
			spoil(layout.digest "layer two", flip)
			refused("EBADMSG", layout.digest "layer two" .. ": its bytes have digest sha256:", ":t")
		end)

		it("refuses a layer that is cut short, or goes on", function()
			images:tag(images:image(), "t")
			spoil(layout.digest "layer two", cut)
			refused("EBADMSG", layout.digest "layer two" .. ": ends after 8 of 9 bytes", ":t")
			spoil(layout.digest "layer two", function() return "layer two and more" end)
			refused("EBADMSG", layout.digest "layer two" .. ": more than its 9 bytes", ":t")
		end)

		it("refuses a layer of another size than announced", function()
			images:tag(images:image { change_manifest = function(m) m.layers[1].size = 5 end }, "t")
			refused("EBADMSG", "more than its 5 bytes", ":t")
		end)

		it("refuses a layer that is absent, or no file", function()
			images:tag(images:image(), "t")
			local path = images:blob_path(layout.digest "layer one")
			os.remove(path)
			refused("ENOENT", layout.digest("layer one"):sub(8), ":t")
			scratch.run("mkfifo " .. path)
			refused("EBADMSG", "not a regular file", ":t")
		end)

		it("refuses a manifest or config with another digest", function()
			local manifest = images:tag(images:image(), "t")
			spoil(manifest.digest, flip)
			refused("EBADMSG", "manifest " .. manifest.digest .. ": its bytes have digest", ":t")
			local nobody = "sha256:" .. ("0"):rep(64)
			images:tag(images:image { layers = { "q" }, change_manifest = function(m)
				scratch.write(images:blob_path(nobody), ("x"):rep(m.config.size))
				m.config.digest = nobody
			end }, "u")
			refused("EBADMSG", "config " .. nobody .. ": its bytes have digest", ":u")
		end)

		it("refuses a manifest or config of another size than announced", function()
			local manifest = images:image()
			manifest.size = manifest.size + 1
			images:tag(manifest, "t")
			refused("EBADMSG", "manifest " .. manifest.digest .. ": %d+ bytes where %d+ were announced", ":t")
			manifest.size = 100
			images:tag(manifest, "u")
			refused("EBADMSG", "manifest " .. manifest.digest .. ": more than its 100 bytes", ":u")
			images:tag(images:image {
				layers = { "r" },
				change_manifest = function(m) m.config.size = m.config.size + 1 end,
			}, "v")
			refused("EBADMSG", "config sha256:%x+: %d+ bytes where %d+ were announced", ":v")
		end)

		it("refuses a missing tag and names those there are", function()
			images:tag(images:image(), "a")
			images:tag(images:image(), "b")
			refused("ENOENT", "no tag 'x'; it has: a, b", ":x")
			refused("EINVAL", "several images, name one: a, b")
		end)

		it("refuses a folder that is no layout", function()
			os.remove(images.path .. "/oci-layout")
			refused("ENOENT", "no OCI image layout")
			scratch.write(images.path .. "/oci-layout", '{"imageLayoutVersion":"2.0.0"}')
			refused("EOPNOTSUPP", "version 2.0.0")
			scratch.run("rm -r " .. images.path)
			refused("ENOENT", "no OCI image layout")
		end)

		it("refuses garbage for JSON", function()
			for _, text in ipairs { "", "{", "nonsense", "[]", '{"manifests":{}}', '{"a":1,"a":2}', ("["):rep(10000) } do
				scratch.write(images.path .. "/index.json", text)
				refused("EBADMSG", "index.json", ":t")
			end
			scratch.write(images.path .. "/index.json", (" "):rep((4 << 20) + 1))
			refused("EFBIG", "index.json", ":t")
		end)

		local manifests = {
			{ "garbage", "EBADMSG", "not JSON", function() return "\1\2\3" end },
			{ "schema 1", "EOPNOTSUPP", "schema 1", function() return '{"schemaVersion":1,"fsLayers":[]}' end },
			{ "another schema", "EBADMSG", "schemaVersion is not 2", function(m) m.schemaVersion = 3 end },
			{ "an artifact", "EOPNOTSUPP", "artifact of type application/x%.helm",
				function(m) m.config.mediaType = "application/x.helm" end },
			{ "another media type", "EBADMSG", "announced as", function(m) m.mediaType = layout.INDEX end },
			{ "both kinds at once", "EBADMSG", "both an index and a manifest", function(m) m.manifests = m.layers end },
			{ "no config", "EBADMSG", "'config' is missing", function(m) m.config = nil end },
			{ "no layers", "EBADMSG", "'layers' is missing", function(m) m.layers = nil end },
			{ "a layer that is no object", "EBADMSG", "layers%[1%]", function(m) m.layers[2] = 7 end },
			{ "a negative size", "EBADMSG", "layers%[0%]: 'size'", function(m) m.layers[1].size = -1 end },
			{ "a fractional size", "EBADMSG", "layers%[0%]: 'size'", function(m) m.layers[1].size = 1.5 end },
			{ "a path for a digest", "EBADMSG", "64 lower%-case hex",
				function(m) m.layers[1].digest = "sha256:../../../../etc/passwd" end },
			{ "sha512", "EOPNOTSUPP", "sha512 is not supported",
				function(m) m.layers[1].digest = "sha512:" .. ("0"):rep(128) end },
			{ "a huge config", "EFBIG", "config: 5000000 bytes", function(m) m.config.size = 5000000 end },
			{ "501 layers", "EBADMSG", "501 layers, more than 500",
				function(m) for i = 1, 501 do m.layers[i] = m.layers[1] end end },
			{ "a layer that is none", "EOPNOTSUPP", "layers%[1%]: media type application/vnd.in%-toto%+json is no layer's",
				function(m) m.layers[2].mediaType = "application/vnd.in-toto+json" end },
			{ "an encrypted layer", "EOPNOTSUPP", "layers%[0%]: .*%+encrypted is an encrypted layer",
				function(m) m.layers[1].mediaType = layout.LAYER .. "+gzip+encrypted" end },
			{ "a layer packed unheard of", "EOPNOTSUPP", "tar%+gzipped is no layer's",
				function(m) m.layers[1].mediaType = layout.LAYER .. "+gzipped" end },
			{ "fewer layers than the config", "EBADMSG", "2 diff_ids, but the manifest has 1 layers",
				function(m) m.layers[2] = nil end },
		}
		for _, case in ipairs(manifests) do
			it("refuses a manifest with " .. case[1], function()
				images:tag(images:image { change_manifest = case[4] }, "t")
				refused(case[2], case[3], ":t")
			end)
		end

		local configs = {
			{ "garbage", "not JSON", function() return "{]" end },
			{ "no architecture", "'architecture' is missing", function(c) c.architecture = nil end },
			{ "no rootfs", "'rootfs' is missing", function(c) c.rootfs = nil end },
			{ "a bad diff_id", "not a digest", function(c) c.rootfs.diff_ids[1] = "x" end },
			{ "a diff_id that is no string", "diff_ids%[0%]", function(c) c.rootfs.diff_ids[1] = 5 end },
			{ "a Cmd that is no list", "'Cmd' is not an array", function(c) c.config = { Cmd = "ls" } end },
			{ "an Env that is no string", "Env%[0%] is not a string", function(c) c.config = { Env = { 1 } } end },
			{ "an Env without a name", "Env%[1%] is not NAME=VALUE", function(c) c.config = { Env = { "A=1", "=2" } } end },
			{ "a User that is no string", "'User' is not a string", function(c) c.config = { User = 0 } end },
			{ "a config that is no object", "'config' is not an object", function(c) c.config = "x" end },
		}
		for _, case in ipairs(configs) do
			it("refuses a config with " .. case[1], function()
				images:tag(images:image { change_config = case[3] }, "t")
				refused("EBADMSG", case[2], ":t")
			end)
		end

		it("refuses a layer above the cap before it reads it", function()
			images:tag(images:image(), "t")
			refused("EFBIG", "9 bytes, more than the 8 allowed", ":t", { blob_max_bytes = 8 })
		end)

		it("refuses indexes nested too deep, or too many", function()
			local entry = images:image()
			for _ = 1, 5 do entry = images:index { entry } end
			images:tag(entry, "deep")
			refused("EBADMSG", "nested more than 4 deep", ":deep")
			local many = {}
			for i = 1, 65 do many[i] = images:image { layers = { "l" .. i }, architecture = other_architecture } end
			images:tag(images:index(many), "many")
			refused("EBADMSG", "more than 64 manifests", ":many")
		end)

		it("refuses a platform that no guest can be", function()
			images:tag(images:image(), "t")
			for _, platform in ipairs { "windows/amd64", "linux/mips", "", "linux/", "amd64/v3", "linux/amd64/../x" } do
				local image, message, code = pull(":t", { platform = platform })
				assert.is_nil(image)
				assert.matches("platform '", message)
				assert.equal("EINVAL", code)
			end
		end)
	end)

	it("raises for misuse", function()
		assert.has_error(function() core.image_pull_begin("x", { stroe = "y" }) end, "unknown option 'stroe'")
		assert.has_error(function() core.image_pull_begin("x", { store = 1 }) end)
		assert.has_error(function() core.image_pull_begin("x", { policy = "often" }) end)
		assert.has_error(function() core.image_pull_begin("x", { blob_max_bytes = 0 }) end)
		assert.has_error(function() core.image_pull_begin "a\0b" end)
		assert.has_error(function() core.image_pull_begin() end)
	end)

	describe("made by others", function()
		it("reads umoci's layers and configuration", function()
			if not scratch.has "umoci" then pending "umoci is not installed" return end
			scratch.run(([[cd %s && umoci init --layout L && umoci new --image L:t && umoci unpack --rootless --image L:t B &&
				echo hi >B/rootfs/a && umoci repack --image L:t --refresh-bundle B && rm B/rootfs/a &&
				umoci repack --image L:t B && umoci config --image L:t --config.entrypoint /bin/sh --config.cmd -c \
				--config.cmd 'echo hi' --config.env A=1 --config.user 7 --config.workingdir /w --config.volume /data \
				--architecture arm64 --os linux]]):format(folder))
			images = { path = folder .. "/L" }
			local image <close>, stats = assert(pull(":t", { platform = "arm64" }))
			assert.equal(2, stats.fetched_layers)
			local process = image:process()
			assert.same({ { "/bin/sh" }, { "-c", "echo hi" }, "/w", "7" },
				{ process.entrypoint, process.cmd, process.workdir, process.user })
			assert.same({}, image:config().config.Volumes["/data"])
			for _, layer in ipairs(image:layers()) do
				assert.matches("%+gzip$", layer.media_type)
				local tar = scratch.run(("gzip -dc %s/blobs/sha256/%s | sha256sum"):format(store, layer.digest:sub(8)))
				assert.equal(layer.diff_id:sub(8), tar:match "%x+")
			end
			local none, message, code = pull(":t", { platform = "amd64" })
			assert.is_nil(none)
			assert.equal("ENOEXEC", code)
			assert.matches("there is: linux/arm64", message)
		end)

		it("reads skopeo's copy of an index", function()
			if not scratch.has "skopeo" then pending "skopeo is not installed" return end
			local amd64 = images:image { layers = { "amd" } }
			local arm64 = images:image { layers = { "arm" }, architecture = "arm64" }
			amd64.platform = { os = "linux", architecture = "amd64" }
			arm64.platform = { os = "linux", architecture = "arm64" }
			images:tag(images:index { amd64, arm64 }, "t")
			local copy = folder .. "/copy"
			scratch.run(("skopeo --insecure-policy copy -q --all --preserve-digests oci:%s:t oci:%s:u"):format(images.path,
				copy))
			images = { path = copy }
			local image <close> = assert(pull(":u", { platform = "arm64" }))
			assert.equal(arm64.digest, image:digest())
		end)
	end)
end)
