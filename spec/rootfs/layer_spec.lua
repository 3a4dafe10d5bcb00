-- Baking as a whole: what is refused and how, what is left behind, and what is shared.
local core = require "supermachine.core"
local erofs = require "spec.support.erofs"
local lfs = require "lfs"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

describe("baking a layer", function()
	local folder, tar, image
	before_each(function()
		folder = scratch.folder()
		tar, image = folder .. "/layer.tar", folder .. "/out/layer.erofs"
		scratch.run(("mkdir '%s/out'"):format(folder))
	end)
	after_each(function() scratch.remove(folder) end)

	local function assert_nothing_left() assert.are.same({}, scratch.files(folder .. "/out")) end

	-- The bake fails with this code and a message that has all these parts, and leaves nothing.
	local function assert_refused(code, parts, options)
		local stats, message, name = layer.bake(tar, image, options)
		assert.is_nil(stats)
		assert.are.equal(code, name, message)
		for _, part in ipairs(parts) do assert.is_truthy(message:find(part, 1, true), message) end
		assert_nothing_left()
	end

	local function count_descriptors()
		local count = 0
		for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
		return count
	end

	describe("refuses", function()
		local REFUSED = {
			{ "a path with ..", "add('../x')", "EBADMSG", { "entry '../x'", "'..'" } },
			{ "a path with .. inside", "add('a/../../x')", "EBADMSG", { "entry 'a/../../x'" } },
			{ "an absolute path with ..", "add('/../x')", "EBADMSG", { "entry '/../x'" } },
			{ "a path through a symlink to itself", "add('s', 'symlink', to='s'); add('s/x')", "ELOOP", { "entry 's/x'" } },
			{ "an opaque mark in a symlink to itself", "add('s', 'symlink', to='s'); add('s/.wh..wh..opq')", "ELOOP",
				{ "entry 's/.wh..wh..opq'" } },
			{ "a path through a file", "add('f'); add('f/x')", "EBADMSG", { "entry 'f/x'", "'f', which is no directory" } },
			{ "the root as a symlink", "add('.', 'symlink', to='/etc')", "EBADMSG", { "entry '.'", "root" } },
			{ "the root as a file", "add('./', 'fifo')", "EBADMSG", { "root" } },
			{ "the root as a hard link", "add('a'); add('.', 'link', to='a')", "EBADMSG", { "root" } },
			{ "a hard link with ..", "add('x', 'link', to='../etc/shadow')", "EBADMSG", { "entry 'x'", "hard link target" } },
			{ "a hard link to nothing", "add('x', 'link', to='missing')", "EBADMSG", { "entry 'x'", "'missing'" } },
			{ "a hard link to itself", "add('x', 'link', to='x')", "EBADMSG", { "entry 'x'", "'x'" } },
			{ "hard links in a circle", "add('x', 'link', to='y'); add('y', 'link', to='x')", "EBADMSG",
				{ "entry 'x'", "'y'" } },
			{ "a hard link to a later directory", "add('x', 'link', to='y'); add('y', 'dir')", "EBADMSG",
				{ "entry 'x'", "'y' is a directory" } },
			{ "a hard link to what is later hidden", "add('x', 'link', to='y'); add('.wh.y')", "EBADMSG", { "entry 'x'" } },
			{ "a hard link through a symlink to nothing", "add('s', 'symlink', to='d'); add('x', 'link', to='s/f')", "EBADMSG",
				{ "entry 'x'", "'s/f'" } },
			{ "a hard link to a directory", "add('d', 'dir'); add('x', 'link', to='d')", "EBADMSG", { "'d' is a directory" } },
			{ "a hard link to what was replaced", "add('d/f'); add('d'); add('x', 'link', to='d/f')", "EBADMSG", { "'d/f'" } },
			{ "a hard link to a whiteout", "add('.wh.f'); add('x', 'link', to='f')", "EBADMSG", { "'f'" } },
			{ "a component of 256 bytes", "add('d/' + 'n' * 256)", "ENAMETOOLONG", { "256 bytes" } },
			{ "a path of 4097 bytes", "add('n' * 197 + ('/' + 'n' * 194) * 20)", "ENAMETOOLONG", { "4096 bytes" } },
			{ "a symlink target of 4096 bytes", "add('s', 'symlink', to='t' * 4096)", "ENAMETOOLONG", { "entry 's'" } },
			{ "a symlink without a target", "add('s', 'symlink')", "EBADMSG", { "entry 's'" } },
			{ "overlayfs's own whiteouts", "add('w', 'char', dev=(0, 0))", "EBADMSG", { "entry 'w'", "0/0" } },
			{ "overlayfs's own attributes", "add('d', 'dir', xattrs={'trusted.overlay.redirect': '/etc'})", "EBADMSG",
				{ "entry 'd/'", "trusted.overlay.redirect" } },
			{ "an attribute with two values", "add('f', xattrs={'user.x': 'a'}, pax={'LIBARCHIVE.xattr.user.x': 'Yg'})",
				"EBADMSG", { "entry 'f'", "twice" } },
			{ "a whiteout of nothing", "add('d/.wh.')", "EBADMSG", { "entry 'd/.wh.'" } },
			{ "a whiteout of .", "add('.wh..')", "EBADMSG", { "entry '.wh..'" } },
			{ "a whiteout of ..", "add('d/.wh...')", "EBADMSG", { "entry 'd/.wh...'" } },
			{ "a path below a whiteout", "add('.wh.d/x')", "EBADMSG", { "entry '.wh.d/x'" } },
			{ "a device number out of range", "add('b', 'block', dev=(4096, 0))", "EBADMSG", { "entry 'b'", "4096/0" } },
			{ "an owner out of range", "add('f', pax={'uid': '4294967295'})", "EBADMSG", { "entry 'f'", "4294967295" } },
			{ "a negative owner", "add('f', pax={'uid': '-1'})", "EBADMSG", { "entry 'f'" } },
			{ "a file over 16 TiB", "sparse('f', 2**45, '1 0 0')", "EFBIG", { "entry 'f'" } },
			{ "a sparse map out of order", "sparse('f', 9999, '2 5000 10 0 10', 'x' * 20)", "EBADMSG",
				{ "entry 'f'", "out of order" } },
			{ "a sparse map past the end", "sparse('f', 100, '1 5000 10', 'x' * 10)", "EBADMSG",
				{ "entry 'f'", "past the file's end" } },
		}
		for _, case in ipairs(REFUSED) do
			it(case[1], function()
				layer.tar(tar, "add('before', data='x' * 5000)\n" .. case[2] .. "\nadd('after')")
				assert_refused(case[3], { image, table.unpack(case[4]) })
			end)
		end

		it("more entries, memory or bytes than allowed", function()
			layer.tar(tar, "for i in range(50):\n add('a/b/f%d' % i, data='x' * 5000)")
			assert_refused("E2BIG", { "40 names" }, { max_entries = 40 })
			assert_refused("E2BIG", { "memory" }, { max_memory_bytes = 1000 })
			assert_refused("EFBIG", { "200000 bytes" }, { max_bytes = 200000 })
			layer.tar(tar, "for i in range(50):\n add('same')")
			assert_refused("E2BIG", { "40 entries" }, { max_entries = 40 })
			-- a sparse file takes whole chunks
			layer.tar(tar, "for i in range(20):\n sparse('f%d' % i, 5 << 30, '1 5000 1', 'x')")
			assert_refused("EFBIG", { "limit of 2000000 bytes" }, { max_bytes = 2000000 })
			assert.is_truthy(layer.bake(tar, image, { max_bytes = 8000000 }))
		end)

		-- 200 bytes an entry, besides the names themselves, and a chunk of the arena.
		it("what entries take only over 200 bytes each", function()
			for _, code in ipairs { "add('%07d' % i)", "add('%07d' % i, 'dir')", "add('%07d' % i, 'symlink', to='')" } do
				layer.tar(tar, "for i in range(20000):\n " .. code:gsub("to=''", "to='t'"))
				local options = { max_memory_bytes = 20000 * (200 + 8) + (128 << 10) }
				assert.is_truthy(layer.bake(tar, image, options), code)
				os.remove(image)
			end
			assert_refused("E2BIG", { "memory" }, { max_memory_bytes = 20000 * 60 })
		end)

		it("a bomb, before it is unpacked whole", function()
			scratch.run(("head -c 50000000 /dev/zero | gzip -9 >'%s'"):format(tar))
			assert_refused("EFBIG", { "unpacks to more than 1000000 bytes" }, { max_bytes = 1000000 })
		end)

		it("what is no tar", function()
			scratch.write(tar, ("no tar"):rep(1000))
			assert_refused("EBADMSG", { image })
			scratch.write(tar, "\x1f\x8b not gzip either")
			assert_refused("EBADMSG", { image })
		end)

		it("a missing tar and a missing folder", function()
			assert_refused("ENOENT", { tar })
			layer.tar(tar, "add('a')")
			image = folder .. "/out/none/layer.erofs"
			assert_refused("ENOENT", { image })
		end)

		it("a digest that is none", function()
			layer.tar(tar, "add('a')")
			assert_refused("EINVAL", { "sha512:00" }, { diff_id = "sha512:00" })
			assert_refused("EINVAL", {}, { diff_id = "sha256:" .. ("A"):rep(64) })
		end)
	end)

	it("names the layer and the entry where a tar or its packing ends too early", function()
		layer.tar(tar, [[
			import random
			random.seed(2)
			add('first', data=random.randbytes(20000))
			add('second', data=random.randbytes(200000))
			add('third')
		]])
		local whole = scratch.read(tar)
		local diff_id = assert(layer.bake(tar, folder .. "/whole.erofs")).diff_id
		scratch.write(tar, whole:sub(1, 30000))
		assert_refused("EBADMSG", { "layer " .. diff_id, "entry 'second'", "runcated" }, { diff_id = diff_id })
		-- Where the next header should be, a tar may end for all that its format says: the digest tells.
		scratch.write(tar, whole:sub(1, 512 + 20480))
		assert_refused("EBADMSG", { "layer " .. diff_id, "digest" }, { diff_id = diff_id })
		scratch.write(tar, whole:sub(1, 512 + 20480 + 100))
		assert_refused("EBADMSG", { "layer " .. diff_id, "after entry 'first'" }, { diff_id = diff_id })
		scratch.write(tar, whole)
		scratch.run(("gzip '%s'"):format(tar))
		tar = tar .. ".gz"
		local packed = scratch.read(tar)
		scratch.write(tar, packed:sub(1, 150000))
		assert_refused("EBADMSG", { "layer " .. diff_id, "entry 'second'", "runcated gzip" }, { diff_id = diff_id })
		for _, cut in ipairs { 5, 15, 1000, #packed - 4 } do
			scratch.write(tar, packed:sub(1, cut))
			assert_refused("EBADMSG", { "layer " .. diff_id, "decompress" }, { diff_id = diff_id })
		end
	end)

	-- Without the zeros that fill its last block and mark its end, as umoci insert writes it, a tar is whole.
	it("takes a tar that ends after its last file's last byte, and none that ends before", function()
		local names = { "first", "second", "sparse" }
		layer.tar(tar, [[
			add('first', data='1' * 700)
			add('second', data='2' * 600, xattrs={'user.a': 'b'})
			sparse('sparse', 900, '1 300 101', '3' * 101)
		]])
		local whole = scratch.read(tar)
		local data = { ("1"):rep(700), ("2"):rep(600), ("\0"):rep(300) .. ("3"):rep(101) .. ("\0"):rep(499) }
		local ends = { select(2, whole:find(("1"):rep(700), 1, true)), select(2, whole:find(("2"):rep(600), 1, true)),
			select(2, whole:find(("3"):rep(101), 1, true)) }
		local taken = 0
		local function try(cut)
			scratch.write(tar, whole:sub(1, cut))
			local stats, message, code = layer.bake(tar, image)
			-- up to the next header the layer is one of the files so far
			local count = 0
			for i, at in ipairs(ends) do
				if cut >= at and (i == #ends or cut <= (at + 511) // 512 * 512) then count = i end
			end
			if count == 0 then
				assert.are.same({ nil, "EBADMSG" }, { stats, code }, cut)
				assert.is_truthy(message:find("entry '", 1, true), message)
			else
				assert.is_truthy(stats, message)
				taken = taken + 1
				assert.are.equal("sha256:" .. core.sha256(whole:sub(1, cut)), stats.diff_id)
				local reader <close> = erofs.open(image)
				local paths = reader:tree()
				for i, name in ipairs(names) do
					assert.are.equal(i <= count and data[i] or nil, paths[name] and reader:read(paths[name]), cut)
				end
				os.remove(image)
			end
		end
		for i = 1, 2 do
			for cut = ends[i] - 3, ends[i] + 3 do try(cut) end
			for cut = (ends[i] + 511) // 512 * 512 - 2, ends[i] + 520, 3 do try(cut) end
		end
		for cut = ends[3] - 500, ends[3] + 1100, 7 do try(cut) end
		for cut = ends[3] - 5, ends[3] + 5 do try(cut) end
		assert.is_true(taken > 1101 // 7 + 2 * 4)
		assert_nothing_left()
	end)

	it("refuses content with another digest, whole or with bytes after its end", function()
		layer.tar(tar, "add('a', data='content')")
		local diff_id = assert(layer.bake(tar, folder .. "/whole.erofs")).diff_id
		local whole = scratch.read(tar)
		local at = whole:find("content", 1, true)
		scratch.write(tar, whole:sub(1, at - 1) .. "C" .. whole:sub(at + 1))
		assert_refused("EBADMSG", { "layer " .. diff_id, "sha256:" }, { diff_id = diff_id })
		scratch.write(tar, whole .. "more")
		assert_refused("EBADMSG", { "layer " .. diff_id, "sha256:" }, { diff_id = diff_id })
	end)

	it("goes to a place named by the digest", function()
		local hex = ("0123456789abcdef"):rep(4)
		assert.are.equal("/store/erofs/sha256-" .. hex .. ".erofs", core.erofs_path("/store", "sha256:" .. hex))
		for _, bad in ipairs { "", "sha256:", hex, "sha256:../" .. hex:sub(4), "sha256:" .. hex .. "0" } do
			local path, _, code = core.erofs_path("/store", bad)
			assert.is_nil(path)
			assert.are.equal("EINVAL", code)
		end
	end)

	it("reuses a sound image and replaces a damaged one", function()
		layer.tar(tar, "add('.wh..wh..opq'); add('a', data='x' * 10000)")
		local diff_id = assert(layer.bake(tar, image)).diff_id
		local options = { diff_id = diff_id }
		local before = scratch.read(image)
		local stats = assert(layer.bake(tar, image, options))
		assert.is_true(stats.reused)
		assert.is_true(stats.root_opaque)
		assert.are.equal(#before, stats.image_bytes)
		assert.are.equal(diff_id, stats.diff_id)
		local damaged = {
			before:sub(1, 4096), before .. ("\0"):rep(4096), before:sub(1, 1030) .. "!" .. before:sub(1032), "",
		}
		for _, data in ipairs(damaged) do
			scratch.write(image, data)
			assert.is_false(assert(layer.bake(tar, image, options)).reused)
			assert.is_true(scratch.read(image) == before)
		end
		-- another layer's image in this one's place
		layer.tar(folder .. "/other.tar", "add('b')")
		os.remove(image)
		assert(layer.bake(folder .. "/other.tar", image))
		assert.is_false(assert(layer.bake(tar, image, options)).reused)
		assert.is_true(scratch.read(image) == before)
	end)

	it("is safe when several do it at once", function()
		layer.tar(tar, "for i in range(3000):\n add('f%d' % i, data='x' * (i % 7000))")
		local diff_id = assert(layer.bake(tar, folder .. "/one.erofs")).diff_id
		local operations = {}
		for i = 1, 6 do operations[i] = assert(core.erofs_begin(tar, image, { diff_id = diff_id })) end
		for _, operation in ipairs(operations) do
			assert.are.equal(diff_id, assert(operation:finish()).diff_id)
			operation:close()
		end
		assert.are.same({ "layer.erofs" }, scratch.files(folder .. "/out"))
		assert.is_true(scratch.read(image) == scratch.read(folder .. "/one.erofs"))
	end)

	it("can be cancelled", function()
		scratch.run(("mkfifo '%s'"):format(tar))
		-- Opened for both, the pipe never ends by itself; the bake's own open does not wait.
		local pipe <close> = assert(io.open(tar, "r+b"))
		local operation <close> = assert(core.erofs_begin(tar, image))
		operation:cancel()
		assert(pipe:write(("\0"):rep(1000)))
		assert(pipe:flush())
		local stats, _, code = operation:finish()
		assert.is_nil(stats)
		assert.are.equal("ECANCELED", code)
		assert_nothing_left()
	end)

	it("takes any damage as an error or a sound image, and leaks nothing", function()
		layer.tar(tar, [[
			add('d', 'dir', xattrs={'user.x': 'v' * 30})
			add('d/f', data='x' * 3000, xattrs={'security.capability': 'abc'})
			add('d/l', 'link', to='d/f')
			add('s', 'symlink', to='d/f')
			add('d/.wh.gone')
			sparse('sparse', 99999, '2 0 10 50000 10', 'x' * 20)
			add('long' * 60 + '/name')
			add('c', 'char', dev=(1, 3))
		]])
		local whole = scratch.read(tar)
		local sum_fixed = function(data)
			-- A header whose checksum is right again gets past the first look.
			local parts = {}
			for at = 1, #data, 512 do
				local block = data:sub(at, at + 511)
				if #block == 512 and block:sub(258, 262) == "ustar" then
					local sum = 256
					for i = 1, 512 do if i < 149 or i > 156 then sum = sum + block:byte(i) end end
					block = block:sub(1, 148) .. ("%06o\0 "):format(sum) .. block:sub(157)
				end
				parts[#parts + 1] = block
			end
			return table.concat(parts)
		end
		local rounds = tonumber(os.getenv "SUPERMACHINE_FUZZ_ROUNDS") or 150
		math.randomseed(20, tonumber(os.getenv "SUPERMACHINE_FUZZ_SEED") or 1)
		local baked, descriptors = 0, count_descriptors()
		for round = 1, rounds do
			local data = whole
			for _ = 1, math.random(3) do
				local at = math.random(#whole - 1024)
				data = data:sub(1, at - 1) .. string.char(math.random(0, 255)) .. data:sub(at + 1)
			end
			if round % 4 ~= 0 then data = sum_fixed(data) end
			scratch.write(tar, data)
			local stats, message, code = layer.bake(tar, image, { max_bytes = 64 << 20 })
			if stats then
				baked = baked + 1
				if round % 10 == 0 then layer.fsck(image) end
				os.remove(image)
			else
				assert.is_truthy(({ EBADMSG = 1, EFBIG = 1, E2BIG = 1, ENAMETOOLONG = 1 })[code], message)
			end
			assert_nothing_left()
		end
		assert.is_true(baked > 0)
		assert.are.equal(descriptors, count_descriptors())
	end)
end)
