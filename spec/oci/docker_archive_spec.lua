local archive = require "spec.support.docker_archive"
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local pulls = require "spec.support.pulls"
local scratch = require "spec.support.scratch"

local LARGE, LAYERS = pulls.LARGE, pulls.LAYERS
local one, two = pulls.one, pulls.two
local nameless = archive.image { layers = { "e", "e" } }
local empty = archive.image { tags = { "empty:1" }, layers = {} }

describe("an image in a docker archive", function()
	local here = pulls.each(before_each, after_each)

	for _, writer in ipairs { "old_docker", "new_docker", "podman" } do
		local write = archive[writer]

		it("is read as written by " .. writer, function()
			local tar = archive.tar(here.folder .. "/a.tar", write { one })
			assert.equal(archive.digest(one), here:digest("docker-archive:" .. tar, one.layers))
		end)

		it("is read from a packed tar of " .. writer, function()
			local tar = archive.tar(here.folder .. "/a.tar", write { one })
			for _, kind in ipairs(pulls.KINDS) do
				assert.equal(archive.digest(one), here:digest("docker-archive:" .. here:pack(tar, kind), one.layers), kind)
			end
		end)

		it("is chosen from several of " .. writer .. ", by name or number", function()
			local tar = archive.tar(here.folder .. "/a.tar", write { one, two, nameless, empty })
			local names = {
				[":one:1"] = one, [":one"] = one, [":docker.io/library/one:latest"] = one, [":two:1"] = two,
				[":q.io/x/two:2"] = two, [":@0"] = one, [":@1"] = two, [":@2"] = nameless, [":empty:1"] = empty,
			}
			for name, image in pairs(names) do
				assert.equal(archive.digest(image), here:digest("docker-archive:" .. tar .. name, image.layers))
			end
			local there = "there is: @0 one:1 one:latest, @1 two:1 q.io/x/two:2, @2, @3 empty:1"
			here:refused("EINVAL", "holds several images, name one" .. there:sub(9), "docker-archive:" .. tar)
			here:refused("ENOENT", "no image 'docker.io/library/two:latest'; " .. there, "docker-archive:" .. tar .. ":two")
			here:refused("ENOENT", "no image 'q.io/x/one:1'; " .. there, "docker-archive:" .. tar .. ":q.io/x/one:1")
			here:refused("ENOENT", "no image @4; " .. there, "docker-archive:" .. tar .. ":@4")
		end)
	end

	it("has one digest in every tar that holds it", function()
		local first = archive.tar(here.folder .. "/a.tar", archive.podman { two, one })
		local tar = here.folder .. "/b.tar"
		scratch.run(("mkdir %s/x && tar -C %s/x -xf %s"):format(here.folder, here.folder, first))
		for _, format in ipairs { "v7", "oldgnu", "gnu", "ustar", "pax" } do
			scratch.run(("tar -C %s/x --format=%s -cf %s ."):format(here.folder, format, tar))
			assert.equal(archive.digest(one), here:digest("docker-archive:" .. tar .. ":one", one.layers))
		end
	end)

	it("is told its layers' packing by their magic", function()
		local tar = here.folder .. "/a.tar"
		local layers = { "a", LARGE }
		for kind, suffix in pairs { gz = "+gzip", zst = "+zstd" } do
			scratch.write(here.folder .. "/layer", LARGE)
			local packed = scratch.read(here:pack(here.folder .. "/layer", kind))
			local image = archive.image { tags = { "x:1" }, layers = layers }
			-- A name that is a digest is believed and then checked; for any other the member is hashed.
			for _, name in ipairs { "blobs/sha256/" .. core.sha256(packed), "some/layer.tar" } do
				archive.tar(tar, { { "0/layer.tar", "a" }, { name, packed }, { "c.json", image.config },
					{ "manifest.json", ('[{"Config":"c.json","Layers":["0/layer.tar","%s"]}]'):format(name) } })
				here:digest("docker-archive:" .. tar, layers)
				local found <close> = assert(here:pull("docker-archive:" .. tar))
				local layer = found:layers()[2]
				assert.equal("application/vnd.oci.image.layer.v1.tar" .. suffix, layer.media_type)
				assert.equal(layout.digest(packed), layer.digest)
			end
			archive.tar(tar, { { "0/layer.tar", "a" }, { "blobs/sha256/" .. ("0"):rep(64), packed },
				{ "c.json", image.config }, { "manifest.json",
					('[{"Config":"c.json","Layers":["0/layer.tar","blobs/sha256/%s"]}]'):format(("0"):rep(64)) } })
			here:refused("EBADMSG", "blob sha256:0+: its bytes have digest " .. layout.digest(packed), "docker-archive:" .. tar)
		end
	end)

	it("is found through hard links and chains of symbolic ones", function()
		local tar = archive.tar(here.folder .. "/a.tar", {
			{ "./x/data", "a" }, { "./x/hard", link = "./x/data" }, { "y/1", symlink = "../x/./hard" },
			{ "y/layer.tar", symlink = "1" }, { "c.json", two.config }, { "d", "d" },
			{ "manifest.json", '[{"Config":"./c.json","RepoTags":null,"Layers":["y/layer.tar","y/../d"]}]' },
		})
		assert.equal(archive.digest(two), here:digest("docker-archive:" .. tar, two.layers))
		assert.equal(archive.digest(two), here:digest("docker-archive:" .. here:pack(tar, "gz"), two.layers))
	end)

	it("is read in any order of a packed tar", function()
		local layers, members, names = {}, {}, {}
		for i = 1, 9 do layers[i] = ("layer %d"):format(i):rep(30000) end
		local image = archive.image { layers = layers }
		for k, i in ipairs { 5, 9, 1, 8, 2, 7, 3, 6, 4 } do members[k] = { i .. ".tar", layers[i] } end
		for i = 1, 9 do names[i] = ('"%d.tar"'):format(i) end
		members[10] = { "c.json", image.config }
		members[11] = { "manifest.json", ('[{"Config":"c.json","Layers":[%s]}]'):format(table.concat(names, ",")) }
		local tar = archive.tar(here.folder .. "/a.tar", members)
		assert.equal(archive.digest(image), here:digest("docker-archive:" .. here:pack(tar, "gz"), layers))
	end)

	it("is known by its file from wherever it is named", function()
		local tar = archive.tar(here.folder .. "/a.tar", archive.podman { one })
		local reference = "docker-archive:" .. here.folder .. "/./a.tar:one"
		local image <close> = assert(here:pull(reference))
		assert.equal("docker-archive:" .. tar .. ":docker.io/library/one:latest", image:reference())
		local again <close> = assert(here:pull("docker-archive:" .. tar .. ":one:latest", { policy = "never" }))
		assert.equal(image:digest(), again:digest())
	end)

	it("must be for the platform", function()
		local other = archive.image { architecture = "s390x", layers = { "a" } }
		local tar = archive.tar(here.folder .. "/a.tar", archive.podman { other })
		here:refused("ENOEXEC", "no image for linux/amd64; there is: linux/s390x", "docker-archive:" .. tar)
	end)

	it("is refused with a layer that is not what its config says", function()
		local image = archive.image { layers = { "a", "b" }, diff_ids = { layout.digest "a", layout.digest "x" } }
		for _, writer in ipairs { "old_docker", "new_docker", "podman" } do
			local tar = archive.tar(here.folder .. "/a.tar", archive[writer] { image })
			here:refused("EBADMSG", layout.digest "x" .. ": its bytes have digest " .. layout.digest "b",
				"docker-archive:" .. tar)
			here:refused("EBADMSG", layout.digest "x" .. ": its bytes have digest ", "docker-archive:" .. here:pack(tar, "zst"))
		end
	end)

	local manifest = '[{"Config":"c.json","Layers":["a","d"]}]'
	local function members(text, config)
		return { { "a", "a" }, { "d", "d" }, { "c.json", config or two.config }, { "manifest.json", text or manifest } }
	end
	local function config(change)
		return members(nil, (two.config:gsub(table.unpack(change))))
	end
	local bad = {
		{ "without manifest.json", "ENOENT", "no docker archive: '.*a.tar' has no member 'manifest.json'",
			{ { "repositories", "{}" } } },
		{ "that is empty", "ENOENT", "manifest.json': holds no image", members "[]" },
		{ "whose manifest.json is no JSON", "EBADMSG", "manifest.json': not JSON", members "[}" },
		{ "whose manifest.json is no list", "EBADMSG", "manifest.json': not an array", members "{}" },
		{ "whose manifest.json is too deep", "EBADMSG", "nested too deeply", members(("["):rep(10000)) },
		{ "whose manifest.json has a key twice", "EBADMSG", "'Layers' twice",
			members '[{"Config":"c.json","Layers":["a","d"],"Layers":["d","a"]}]' },
		{ "whose manifest.json is 5 MiB", "EFBIG", "a.tar/manifest.json': larger than 4194304 bytes",
			members((" "):rep(5 << 20)) },
		{ "whose config is 5 MiB", "EFBIG", "a.tar/c.json': larger than 4194304 bytes",
			members(nil, (" "):rep(5 << 20)) },
		{ "whose image is no object", "EBADMSG", "'Config' is missing", members "[7]" },
		{ "without a config's name", "EBADMSG", "'Config' is missing", members '[{"Layers":[]}]' },
		{ "whose Layers are no list", "EBADMSG", "'Layers' is not an array", members '[{"Config":"c.json","Layers":"a"}]' },
		{ "with a layer that is no string", "EBADMSG", "Layers%[1%] or its diff_id is not a string",
			members '[{"Config":"c.json","Layers":["a",1]}]' },
		{ "with a layer too few", "EBADMSG", "1 Layers, but the config has 2 diff_ids",
			members '[{"Config":"c.json","Layers":["a"]}]' },
		{ "with too many layers", "EBADMSG", "501 Layers, more than 500",
			members(('[{"Config":"c.json","Layers":["a"%s]}]'):format((',"a"'):rep(500)), (two.config:gsub('"diff_ids":%b[]',
				'"diff_ids":["x"' .. (',"x"'):rep(500) .. "]"))) },
		{ "with a layer that is not there", "ENOENT", "Layers%[1%]: '.*' has no member 'x'",
			members '[{"Config":"c.json","Layers":["a","x"]}]' },
		{ "with a config that is not there", "ENOENT", "has no member 'x.json'",
			members '[{"Config":"x.json","Layers":["a","d"]}]' },
		{ "with a config outside", "EBADMSG", "'../../etc/passwd' leads out of the archive",
			members '[{"Config":"../../etc/passwd","Layers":["a","d"]}]' },
		{ "with a layer at the root", "EBADMSG", "Layers%[0%]: .*'/etc/passwd' leads out of the archive",
			members '[{"Config":"c.json","Layers":["/etc/passwd","d"]}]' },
		{ "with a layer that climbs out", "EBADMSG", "Layers%[0%]: .*'x/../../a' leads out of the archive",
			members '[{"Config":"c.json","Layers":["x/../../a","d"]}]' },
		{ "with a config that is no JSON", "EBADMSG", "c.json: not JSON", members(nil, "nonsense") },
		{ "with a config without a root", "EBADMSG", "c.json: 'rootfs' is missing", config { "rootfs", "rootsf" } },
		{ "with a config without diff ids", "EBADMSG", "c.json: 'diff_ids' is missing", config { "diff_ids", "ids" } },
		{ "with a diff id that is a path", "EBADMSG", "Layers%[0%]: not a digest",
			config { '"diff_ids":%[".-"', '"diff_ids":["../../x"' } },
	}
	for _, case in ipairs(bad) do
		it("is refused in a tar " .. case[1], function()
			local tar = archive.tar(here.folder .. "/a.tar", case[4])
			here:refused(case[2], case[3], "docker-archive:" .. tar)
			here:refused(case[2], (case[3]:gsub("a%.tar", "a.tar.gz")), "docker-archive:" .. here:pack(tar, "gz"))
		end)
	end

	describe("by skopeo", function()
		local images
		before_each(function() images = here:for_skopeo(pending) end)

		it("is read from its docker archive", function()
			local tar = here.folder .. "/a.tar"
			pulls.skopeo("oci:" .. images.path .. ":t", "docker-archive:" .. tar .. ":q.io/x/y:1")
			local found = here:digest("docker-archive:" .. tar, LAYERS)
			assert.equal(found, here:digest("docker-archive:" .. tar .. ":q.io/x/y:1", LAYERS))
			assert.equal(found, here:digest("docker-archive:" .. here:pack(tar, "gz"), LAYERS))
			here:refused("ENOENT", "no image 'q.io/x/y:2'; there is: @0 q.io/x/y:1", "docker-archive:" .. tar .. ":q.io/x/y:2")
			-- What skopeo makes of it is the same again.
			pulls.skopeo("docker-archive:" .. tar, "oci:" .. here.folder .. "/back:t")
			here:digest("oci:" .. here.folder .. "/back:t", LAYERS)
		end)

		it("reads what the specs write as docker and podman do", function()
			-- The layouts made up here are judged by a program that has met the real ones.
			for _, writer in ipairs { "old_docker", "new_docker", "podman" } do
				local tar = archive.tar(here.folder .. "/" .. writer .. ".tar", archive[writer] { one, two })
				pulls.skopeo("docker-archive:" .. tar .. ":one:1", "dir:" .. here.folder .. "/" .. writer)
				local back = scratch.read(here.folder .. "/" .. writer .. "/" .. one.id)
				assert.equal(one.config, back)
				for _, data in ipairs(one.layers) do
					assert.equal(data, scratch.read(here.folder .. "/" .. writer .. "/" .. core.sha256(data)))
				end
			end
		end)
	end)
end)
