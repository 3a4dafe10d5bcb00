local archive = require "spec.support.docker_archive"
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local pulls = require "spec.support.pulls"
local scratch = require "spec.support.scratch"
local tars = require "spec.support.layer"

local LARGE, LAYERS = pulls.LARGE, pulls.LAYERS
local one, two = pulls.one, pulls.two

describe("an image in a tar", function()
	local here = pulls.each(before_each, after_each)

	local manifest = { "manifest.json", '[{"Config":"c.json","Layers":["a","d"]}]' }
	local config = { "c.json", two.config }
	local a, d = { "a", "a" }, { "d", "d" }

	local many = { manifest, config, d }
	for i = 1, 17 do many[#many + 1] = { i == 1 and "a" or "l" .. i, symlink = "l" .. i + 1 } end
	many[#many + 1] = { "l18", "a" }
	local hostile = {
		{ "a member above the root", "member '../../etc/passwd' leads out",
			{ manifest, config, a, d, { "../../etc/passwd", "x" } } },
		{ "a member that climbs out of a folder", "member 'x/../../y' leads out",
			{ manifest, config, a, d, { "x/../../y", "x" } } },
		{ "a member at the root", "member '/etc/passwd' leads out", { manifest, config, a, d, { "/etc/passwd", "x" } } },
		{ "a link at the host's files", "member 'a' is a link that leads out",
			{ manifest, config, { "a", symlink = "/etc/passwd" }, d } },
		{ "a link above the root", "member 'a' is a link that leads out",
			{ manifest, config, { "a", symlink = "../etc/passwd" }, d } },
		{ "a hard link above the root", "member 'a' is a link that leads out",
			{ manifest, config, { "a", link = "../etc/passwd" }, d } },
		{ "a link to itself", "member 'a': more than 16 links, or a loop", { manifest, config, { "a", symlink = "a" }, d } },
		{ "a loop of links", "member 'a': more than 16 links, or a loop",
			{ manifest, config, { "a", symlink = "b" }, { "b", link = "a" }, d } },
		{ "a long chain of links", "member 'a': more than 16 links", many },
		{ "manifest.json twice", "member 'manifest.json' is there twice", { manifest, config, a, d, manifest } },
		{ "a member under two spellings", "member 'a' is there twice", { manifest, config, a, d, { "./x/..//a", "b" } } },
		{ "a member that a link replaces", "member 'a' is there twice", { manifest, config, a, d, { "a", symlink = "d" } } },
		{ "a FIFO for a layer", "member 'a' is not a regular file", { manifest, config, { "a", kind = "fifo" }, d } },
		{ "a device for a layer", "member 'a' is not a regular file", { manifest, config, { "a", kind = "char" }, d } },
	}
	for _, case in ipairs(hostile) do
		it("is refused with " .. case[1], function()
			local tar = archive.tar(here.folder .. "/a.tar", case[3])
			here:refused("EBADMSG", case[2], "docker-archive:" .. tar)
			here:refused("EBADMSG", case[2], "docker-archive:" .. here:pack(tar, "gz"))
		end)
	end

	it("is refused with a link that leads nowhere, or to a folder", function()
		local tar = archive.tar(here.folder .. "/a.tar", { manifest, config, { "a", symlink = "x" }, d })
		here:refused("ENOENT", "has no member 'x'", "docker-archive:" .. tar)
		archive.tar(tar, { manifest, config, { "x", kind = "dir" }, { "a", symlink = "x" }, d })
		here:refused("ENOENT", "has no member 'x'", "docker-archive:" .. tar)
	end)

	it("is refused with a sparse layer", function()
		local tar = tars.tar(here.folder .. "/a.tar", ([[
			add('manifest.json', data='%s')
			add('c.json', data='%s')
			add('d', data='d')
			sparse('a', 100000, '1 4096 5', 'hello')
		]]):format(manifest[2], two.config))
		here:refused("EBADMSG", "member 'a' is a sparse file", "docker-archive:" .. tar)
	end)

	it("is refused when a size goes beyond the end", function()
		local tar = archive.tar(here.folder .. "/a.tar", { manifest, config, d, { "a", "a", size = 1 << 40 } })
		here:refused("EBADMSG", "member 'a' has 1099511627776 bytes from %d+ on, but the file ends at %d+",
			"docker-archive:" .. tar)
		here:refused("EBADMSG", "entry 4: .*[Tt]runcated", "docker-archive:" .. here:pack(tar, "gz"))
	end)

	it("is refused wherever the tar is cut short", function()
		local whole = scratch.read(archive.tar(here.folder .. "/a.tar", { a, manifest, config, { "d", LARGE } }))
		local tar = here.folder .. "/cut.tar"
		-- Between two members a cut shows by what is missing: 1024, 2048, 3072.
		for _, cut in ipairs {
			{ 0, "EBADMSG" }, { 1, "EBADMSG" }, { 100, "EBADMSG" }, { 511, "EBADMSG" }, { 512, "EBADMSG" }, { 700, "ENOENT" },
			{ 1024, "ENOENT" }, { 1100, "EBADMSG" }, { 1536, "EBADMSG" }, { 2048, "ENOENT" }, { 2600, "EBADMSG" },
			{ 3072, "ENOENT" }, { 3584, "EBADMSG" }, { 200000, "EBADMSG" }, { 3583 + #LARGE, "EBADMSG" },
		} do
			scratch.write(tar, whole:sub(1, cut[1]))
			here:refused(cut[2], "cut.tar", "docker-archive:" .. tar)
		end
		local packed = scratch.read(here:pack(here.folder .. "/a.tar", "gz"))
		for _, len in ipairs { 1, 9, 30, #packed // 2, #packed - 9 } do
			scratch.write(tar, packed:sub(1, len))
			here:refused("EBADMSG", "cut.tar", "docker-archive:" .. tar)
		end
	end)

	it("is refused when the file is none", function()
		scratch.write(here.folder .. "/x", ("no tar at all "):rep(1000))
		here:refused("EBADMSG", "x': entry 0: ", "docker-archive:" .. here.folder .. "/x")
		here:refused("EBADMSG", "x': entry 0: ", "oci-archive:" .. here.folder .. "/x")
		scratch.write(here.folder .. "/x", ("\0"):rep(10240))
		here:refused("ENOENT", "has no member", "docker-archive:" .. here.folder .. "/x")
		here:refused("ENOENT", "open '.*/none'", "oci-archive:" .. here.folder .. "/none")
		here:refused("EBADMSG", "not a regular file", "docker-archive:" .. here.folder)
		scratch.run("mkfifo " .. here.folder .. "/fifo")
		here:refused("EBADMSG", "not a regular file", "docker-archive:" .. here.folder .. "/fifo")
	end)

	it("is refused with more members, or longer names, than an image has", function()
		local tar = here.folder .. "/a.tar"
		local members = {}
		for i = 1, 65537 do members[i] = { tostring(i), link = "x" } end
		archive.tar(tar, members)
		here:refused("EFBIG", "more than 65536 members", "docker-archive:" .. tar)
		tars.tar(tar, "add('x' * 5000)")
		here:refused("ENAMETOOLONG", "member 'xxx", "docker-archive:" .. tar)
		tars.tar(tar, "for i in range(4200): add('%04d' % i + '/x' * 2000)")
		here:refused("EFBIG", "more than 16777216 bytes of member names", "docker-archive:" .. tar)
	end)

	it("is read past names that are not its own", function()
		local tar = here.folder .. "/a.tar"
		tars.tar(tar, ([[
			add('f\u00fcr.txt', data='x')
			add('manifest.json', data='%s')
			add('c.json', data='%s')
			add('a', data='a')
			add('d', data='d')
		]]):format(manifest[2], two.config))
		assert.equal(archive.digest(two), here:digest("docker-archive:" .. tar, two.layers))
	end)

	it("is not unpacked to its end once nobody wants it", function()
		-- A member of 128 GiB of zeroes, as 512 frames of 256 MiB each.
		local tar = here.folder .. "/bomb.tar.zst"
		archive.tar(here.folder .. "/head", { { "a", "", size = 128 << 30 } })
		scratch.run(([[cd %s && head -c 512 head | zstd -qc >bomb.tar.zst && head -c 256M /dev/zero | zstd -qc >frame &&
			for i in $(seq 512); do cat frame; done >>bomb.tar.zst]]):format(here.folder))
		for _, kind in ipairs { "docker-archive:", "oci-archive:" } do
			local operation <close> = assert(core.image_pull_begin(kind .. tar, { store = here.store }))
			operation:cancel()
			local image, message, code = operation:finish()
			assert.is_nil(image)
			assert.equal("ECANCELED", code)
			assert.matches("bomb.tar.zst", message)
		end
	end)

	describe("as an OCI layout", function()
		local images

		before_each(function() images = layout.new(here.folder .. "/images") end)

		local function pack_layout()
			scratch.run(("tar -C %s/images -cf %s/o.tar ."):format(here.folder, here.folder))
			return here.folder .. "/o.tar"
		end

		it("is what it is in the folder", function()
			local first = images:tag(images:image { layers = { "a", LARGE } }, "t")
			local second = images:tag(images:image { layers = { "b" } }, "localhost/bb:1")
			local tar = pack_layout()
			local paths = { tar }
			for i, kind in ipairs(pulls.KINDS) do paths[i + 1] = here:pack(tar, kind) end
			for _, path in ipairs(paths) do
				assert.equal(first.digest, here:digest("oci-archive:" .. path .. ":t", { "a", LARGE }))
				assert.equal(second.digest, here:digest("oci-archive:" .. path .. ":localhost/bb:1", { "b" }))
				assert.equal(second.digest, here:digest("oci-archive:" .. path .. "@" .. second.digest, { "b" }))
				assert.equal(first.digest, here:digest("oci-archive:" .. path .. ":@0", { "a", LARGE }))
			end
			assert.equal(second.digest, here:digest("oci:" .. images.path .. ":@1", { "b" }))
			here:refused("EINVAL", "several images, name one: t, localhost/bb:1", "oci-archive:" .. tar)
			here:refused("ENOENT", "no tag 'x'; it has: t, localhost/bb:1", "oci-archive:" .. tar .. ":x")
			here:refused("ENOENT", "no image @2; it has 2", "oci-archive:" .. tar .. ":@2")
			here:refused("ENOENT", "no image @2; it has 2", "oci:" .. images.path .. ":@2")
		end)

		it("is refused when a blob is not what it is named by", function()
			images:tag(images:image(), "t")
			local blob = layout.digest "layer two"
			local path = images:blob_path(blob)
			scratch.write(path, "layer 2.0")
			here:refused("EBADMSG", blob .. ": its bytes have digest", "oci-archive:" .. pack_layout() .. ":t")
			scratch.write(path, "layer two and more")
			here:refused("EBADMSG", blob .. ": more than its 9 bytes", "oci-archive:" .. pack_layout() .. ":t")
			os.remove(path)
			here:refused("ENOENT", "has no member 'blobs/sha256/" .. blob:sub(8), "oci-archive:" .. pack_layout())
		end)

		it("is refused without the layout's mark", function()
			os.remove(images.path .. "/oci-layout")
			here:refused("ENOENT", "no OCI image layout: '.*' has no member 'oci%-layout'", "oci-archive:" .. pack_layout())
		end)

		it("is found by docker's name where tags are the same", function()
			local other = archive.image { tags = { "other:1" }, layers = { "o" } }
			local tar = archive.tar(here.folder .. "/a.tar", archive.new_docker { one, two, other })
			assert.equal(archive.digest(one), here:digest("oci-archive:" .. tar .. ":docker.io/library/one:1", one.layers))
			assert.equal(archive.digest(other),
				here:digest("oci-archive:" .. tar .. ":docker.io/library/other:1", other.layers))
			assert.equal(archive.digest(one), here:digest("oci-archive:" .. tar .. ":latest", one.layers))
			here:refused("EINVAL", "several images, name one: .*library/one:1.*library/other:1", "oci-archive:" .. tar .. ":1")
		end)
	end)

	describe("by skopeo", function()
		local images
		before_each(function() images = here:for_skopeo(pending) end)

		it("is read from its OCI archive", function()
			local tar = here.folder .. "/o.tar"
			pulls.skopeo("oci:" .. images.path .. ":t", "oci-archive:" .. tar .. ":q.io/x/y:1")
			assert.equal(here:digest("oci-archive:" .. tar, LAYERS),
				here:digest("oci-archive:" .. tar .. ":q.io/x/y:1", LAYERS))
		end)
	end)
end)
