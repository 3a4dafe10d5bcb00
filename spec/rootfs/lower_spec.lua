-- Layers that lean on those below them: hard links to their files, paths without their parents.
local erofs = require "spec.support.erofs"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

describe("a layer over others", function()
	local folder, below, count
	before_each(function()
		folder, below, count = scratch.folder(), {}, 0
	end)
	after_each(function() scratch.remove(folder) end)

	local CHAIN = "sha256:" .. ("c"):rep(64)

	local function bake(code, options)
		count = count + 1
		local tar, image = ("%s/%d.tar"):format(folder, count), ("%s/%d.erofs"):format(folder, count)
		layer.tar(tar, code)
		options = options or {}
		if #below > 0 then
			options.lower, options.chain_id, options.chained_path = below, CHAIN, image .. ".chained"
		end
		local stats, message, name = layer.bake(tar, image, options)
		if not stats then
			assert.is_nil(io.open(image))
			assert.is_nil(io.open(image .. ".chained"))
			return nil, message, name
		end
		return stats, stats.chained and image .. ".chained" or image, tar
	end

	-- Put a layer on those that are there: its statistics, its paths, its image.
	local function add(code)
		local stats, image = assert(bake(code))
		layer.fsck(image)
		below[#below + 1] = image
		local reader <close> = erofs.open(image)
		local paths = reader:tree()
		for _, node in pairs(paths) do
			if node.kind == "file" and node.size < (1 << 20) then node.data = reader:read(node) end
		end
		return stats, paths, image
	end

	local function refused(code, part, name)
		local stats, message, got = bake(code)
		assert.is_nil(stats)
		assert.is_truthy(message:find(part, 1, true), message)
		assert.are.equal(name or "EBADMSG", got)
	end

	it("copies a file that it hard-links, with all that it has", function()
		add [[
			cap = '\x01\x00\x00\x02\x00\x20' + '\x00' * 14
			add('d/file', data='x' * 300001, mode=0o4711, uid=70000, gid=80000, mtime=-7.25,
				xattrs={'security.capability': cap, 'user.a': 'b'})
			add('small', data='tail')
			add('symlink', 'symlink', to='d/file', uid=3)
			add('fifo', 'fifo', mode=0o600)
			add('disk', 'block', dev=(259, 70000))
			add('empty')
			sparse('sparse', 9 << 30, '2 0 5 8589934592 4', 'firstlast')
		]]
		local stats, paths, image = add [[
			add('l', 'link', to='d/file'); add('again', 'link', to='/d/./file'); add('again2', 'link', to='l')
			add('s', 'link', to='small'); add('y', 'link', to='symlink'); add('p', 'link', to='fifo')
			add('b', 'link', to='disk'); add('e', 'link', to='empty'); add('holes', 'link', to='sparse')
		]]
		assert.is_true(stats.chained)
		local file = paths.l
		assert.are.same({ "file", tonumber("4711", 8), 70000, 80000, -8, 750000000, 3 },
			{ file.kind, file.mode, file.uid, file.gid, file.mtime, file.mtime_nsec, file.nlink })
		assert.are.same({ ["security.capability"] = "\1\0\0\2\0\x20" .. ("\0"):rep(14), ["user.a"] = "b" }, file.xattrs)
		assert.is_true(file.data == ("x"):rep(300001))
		assert.are.equal(file, paths.again)
		assert.are.equal(file, paths.again2)
		assert.are.same({ "tail", "" }, { paths.s.data, paths.e.data })
		assert.are.same({ "symlink", "d/file", 3 }, { paths.y.kind, paths.y.target, paths.y.uid })
		assert.are.same({ "fifo", 384 }, { paths.p.kind, paths.p.mode })
		assert.are.same({ "block", 259, 70000 }, { paths.b.kind, paths.b.major, paths.b.minor })
		-- what it does not name is not there
		assert.is_nil(paths.d)
		local reader <close> = erofs.open(image)
		assert.are.equal("last", reader:read(paths.holes, 1 << 33, 4))
		assert.are.same({ 9 << 30, "first\0" }, { paths.holes.size, reader:read(paths.holes, 0, 6) })
		assert.is_true(tonumber(scratch.run(("stat -c %%s '%s'"):format(image))) < (8 << 20))
	end)

	it("takes the file that is on top, and finds it in large directories", function()
		add "add('f', data='first'); add('g', data='g1'); add('d/x', data='x1'); add('d/y', data='y1')"
		add [[
			add('f', data='second')
			add('d', 'dir')
			for i in range(3000): add('many/entry-%d-%s' % (i, 'n' * (i % 50)), data=str(i))
		]]
		local _, paths = add [[
			add('f1', 'link', to='f'); add('g1', 'link', to='g'); add('x1', 'link', to='d/x')
			for i in range(0, 3000, 7): add('m%d' % i, 'link', to='many/entry-%d-%s' % (i, 'n' * (i % 50)))
		]]
		assert.are.same({ "second", "g1", "x1" }, { paths.f1.data, paths.g1.data, paths.x1.data })
		for i = 0, 2999, 7 do assert.are.equal(tostring(i), paths["m" .. i].data) end
	end)

	it("finds nothing where layers hide it", function()
		add "add('f'); add('d/x'); add('o/x'); add('r/x'); add('k/x', data='k')"
		add "add('.wh.f'); add('d'); add('o', 'dir'); add('o/.wh..wh..opq'); add('r', 'symlink', to='k'); add('k', 'dir')"
		for _, name in ipairs { "f", "d/x", "o/x", "missing", "k/x/y", "k/none" } do
			refused(("add('l', 'link', to='%s')"):format(name), "entry 'l': hard link target '" .. name)
		end
		refused("add('l', 'link', to='o')", "is a directory")
		refused("add('l', 'link', to='')", "entry 'l'")
		-- this layer's own
		refused("add('.wh.k'); add('l', 'link', to='k/x')", "'k/x' is not in this layer")
		refused("add('k/.wh..wh..opq'); add('l', 'link', to='k/x')", "'k/x'")
		refused("add('.wh..wh..opq'); add('l', 'link', to='k/x')", "'k/x'")
		refused("add('k'); add('l', 'link', to='k/x')", "'k/x'")
		local _, paths = add "add('l', 'link', to='r/x'); add('.wh.k')"
		assert.are.equal("k", paths.l.data)
		add "add('.wh..wh..opq')"
		refused("add('l2', 'link', to='l')", "'l'")
	end)

	it("has for a missing parent what is below: a directory as it is", function()
		add [[
			add('tmp', 'dir', mode=0o1777, uid=1, gid=2, mtime=3.5, xattrs={'user.t': 'v'})
			add('tmp/deep', 'dir', mode=0o700, uid=9)
			add('file')
		]]
		local stats, paths, _ = add "add('tmp/deep/new'); add('file/x'); add('other/x'); add('tmp/.wh.gone')"
		assert.is_true(stats.chained)
		local tmp = paths.tmp
		assert.are.same({ tonumber("1777", 8), 1, 2, 3, 500000000, { ["user.t"] = "v" } },
			{ tmp.mode, tmp.uid, tmp.gid, tmp.mtime, tmp.mtime_nsec, tmp.xattrs })
		assert.are.same({ 448, 9 }, { paths["tmp/deep"].mode, paths["tmp/deep"].uid })
		assert.are.same({ 493, 0 }, { paths.other.mode, paths.other.uid })
		-- renewed here, it is not the one below
		_, paths = add "add('.wh.tmp'); add('tmp/x'); add('other/.wh..wh..opq')"
		assert.are.same({ 493, 0, { ["trusted.overlay.opaque"] = "y" } },
			{ paths.tmp.mode, paths.tmp.uid, paths.tmp.xattrs })
		-- and an opaque one's mark is its own layer's
		_, paths = add "add('tmp/y'); add('other/z')"
		assert.are.same({}, paths.tmp.xattrs)
		assert.are.same({}, paths.other.xattrs)
	end)

	it("follows symlinks below for missing parents, and not out of the image", function()
		add [[
			add('usr/lib/old', data='o'); add('lib', 'symlink', to='usr/lib')
			add('abs', 'symlink', to='/usr/../../usr/./lib'); add('up', 'symlink', to='../../../etc')
			add('usr/chain', 'symlink', to='../lib'); add('dangling', 'symlink', to='nowhere/yet')
			add('a', 'symlink', to='b'); add('b', 'symlink', to='a'); add('self', 'symlink', to='self/x')
			add('long', 'symlink', to='n' * 256)
		]]
		local _, paths = add [[
			add('lib/one'); add('abs/two'); add('up/three'); add('usr/chain/four'); add('dangling/five')
			add('six', 'link', to='lib/old'); add('lib/.wh.old')
		]]
		for _, name in ipairs { "usr/lib/one", "usr/lib/two", "etc/three", "usr/lib/four", "nowhere/yet/five" } do
			assert.is_not_nil(paths[name], name)
		end
		assert.are.equal("char", paths["usr/lib/old"].kind)
		assert.are.same({ "etc", "nowhere", "six", "usr" }, paths[""].names)
		refused("add('a/x')", "entry 'a/x': path goes through more than 40 symlinks", "ELOOP")
		refused("add('self/x')", "entry 'self/x'", "ELOOP")
		refused("add('l', 'link', to='b/x')", "entry 'l'", "ELOOP")
		refused("add('long/x')", "entry 'long/x'", "ENAMETOOLONG")
		-- its own directory takes a symlink's place, as does its own symlink
		_, paths = add "add('lib', 'dir'); add('lib/own')"
		assert.are.same({ "own" }, paths.lib.names)
		-- ... is where its target leads below: `..` after a symlink is of the directory that it leads to
		_, paths = add "add('up', 'symlink', to='abs/../lib'); add('up/own')"
		assert.are.same({ { "own" }, "abs/../lib" }, { paths["usr/lib"].names, paths.up.target })
	end)

	-- In the time that its depth takes, not the square of it.
	it("finds paths as deep as can be below", function()
		add "for i in range(20): add('d%d/' % i + 'n/' * 1900 + 'f', data=str(i))"
		local _, paths = add "for i in range(20): add('d%d/' % i + 'n/' * 1900 + 'g', data=str(i))"
		assert.are.equal("19", paths["d19/" .. ("n/"):rep(1900) .. "g"].data)
	end)

	it("is keyed by its diff id where it does not lean, by its chain id where it does", function()
		add "add('f', data='1')"
		local stats, image, tar = bake "add('d', 'dir'); add('d/x'); add('y', 'link', to='d/x')"
		assert.is_false(stats.chained)
		local function again(path, options)
			options.diff_id = stats.diff_id
			return assert(layer.bake(path, image, options))
		end
		local function over() return { lower = below, chain_id = CHAIN, chained_path = image .. ".chained" } end
		assert.is_true(again(tar, over()).reused)
		-- as the lowest layer the same file serves
		assert.is_true(again(tar, {}).reused)

		-- A layer that would lean, as the lowest one: its image is nobody else's.
		stats, image, tar = bake("add('d/x')", { lower = nil })
		os.remove(image .. ".chained")
		assert.is_true(stats.chained)
		local lowest = again(tar, {})
		assert.are.same({ false, false }, { lowest.reused, lowest.chained })
		assert.is_true(again(tar, {}).reused)
		local first = again(tar, over())
		assert.are.same({ false, true }, { first.reused, first.chained })
		local second = again(tar, over())
		assert.are.same({ true, true, first.image_bytes }, { second.reused, second.chained, second.image_bytes })
	end)

	it("refuses images below that are damaged, by their number", function()
		local _, _, image = add "add('f', data='x' * 100000); add('d', 'dir')"
		local whole = scratch.read(image)
		for _, cut in ipairs { 0, 1030, 4096, 8192, #whole - 4096 } do
			scratch.write(image, whole:sub(1, cut))
			refused("add('l', 'link', to='f')", "lower layer 1: the image is damaged")
		end
		math.randomseed(5, 6)
		for _ = 1, 25 do
			local at = math.random(1024, #whole)
			if at < 1152 or at > 102400 then
				scratch.write(image, whole:sub(1, at - 1) .. string.char(math.random(0, 255)) .. whole:sub(at + 1))
				local stats, message, code = layer.bake(folder .. "/2.tar", folder .. "/fuzz", {
					lower = below, chain_id = CHAIN, chained_path = folder .. "/fuzz" })
				if not stats then assert.is_truthy(({ EBADMSG = 1, EFBIG = 1, E2BIG = 1, ENAMETOOLONG = 1 })[code], message) end
			end
		end
	end)
end)
