-- What a layer's tar says is what its EROFS image says.
local erofs = require "spec.support.erofs"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

local PACKINGS = [[
import bz2, gzip, lzma, subprocess
data = open('a.tar', 'rb').read()
half = len(data) // 2 + 77
def put(name, *parts):
    open(name, 'wb').write(b''.join(parts))
def zstd(part):
    return subprocess.run(['zstd', '-q', '-c'], input=part, stdout=subprocess.PIPE, check=True).stdout
put('a.members', gzip.compress(data[:half]), gzip.compress(b''), gzip.compress(data[half:]))
skipped = b'\x50\x2a\x4d\x18\x05\0\0\0skip!'
put('a.padded', gzip.compress(data), bytes(1000))
put('a.junk', gzip.compress(data), b'\x1f', gzip.compress(b'no more of it'))
put('a.frames', skipped, zstd(data[:half]), skipped, zstd(data[half:]), skipped)
put('a.bz2', bz2.compress(data))
put('a.streams', bz2.compress(data[:half]), bz2.compress(data[half:]))
put('a.xz', lzma.compress(data))
]]

describe("a layer's EROFS image", function()
	local folder
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	it("holds every kind of file with its attributes", function()
		local paths, stats = layer.make(folder, [[
			add('./', 'dir', mode=0o711, uid=1, gid=2, mtime=5)
			add('d', 'dir', mode=0o1777, mtime=1700000000.25)
			add('d/file', data='hello', mode=0o4755, uid=1000, gid=100000)
			add('d/big-ids', uid=4294967294, gid=4294967294)
			add('empty', mtime=-1.5)
			add('d/symlink', 'symlink', to='../file/that is not there')
			add('link', 'link', to='d/file')
			add('second', 'link', to='./d//file')
			add('char', 'char', dev=(5, 1), mode=0o620)
			add('block', 'block', dev=(259, 70000))
			add('fifo', 'fifo', mode=0o600)
			add('implied/deep/file', data='x' * 5000)
			add('n' * 255)
		]])
		local root = paths[""]
		assert.are.same({ 457, 1, 2, 5 }, { root.mode, root.uid, root.gid, root.mtime })
		assert.are.same({ 1023, 1700000000, 250000000 }, { paths.d.mode, paths.d.mtime, paths.d.mtime_nsec })
		local file = paths["d/file"]
		assert.are.same({ "file", 2541, 1000, 100000, "hello" }, { file.kind, file.mode, file.uid, file.gid, file.data })
		assert.are.equal(3, file.nlink)
		assert.are.equal(file, paths.link)
		assert.are.equal(file, paths.second)
		assert.are.same({ 4294967294, 4294967294 }, { paths["d/big-ids"].uid, paths["d/big-ids"].gid })
		assert.are.same({ 0, "" }, { paths.empty.size, paths.empty.data })
		assert.is_true(paths.empty.mtime < 0)
		assert.are.equal("../file/that is not there", paths["d/symlink"].target)
		assert.are.same({ "char", 400, 5, 1 }, { paths.char.kind, paths.char.mode, paths.char.major, paths.char.minor })
		assert.are.same({ "block", 259, 70000 }, { paths.block.kind, paths.block.major, paths.block.minor })
		assert.are.same({ "fifo", 384 }, { paths.fifo.kind, paths.fifo.mode })
		assert.are.equal(("x"):rep(5000), paths["implied/deep/file"].data)
		local implied = paths["implied/deep"]
		assert.are.same({ "directory", 493, 0, 0, 0 },
			{ implied.kind, implied.mode, implied.uid, implied.gid, implied.mtime })
		assert.is_not_nil(paths[("n"):rep(255)])
		assert.are.equal(13, stats.tar_entries)
		assert.are.equal(13, stats.inodes)
	end)

	it("holds content of any size", function()
		local sizes = { 0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 8191, 8192, 100000, 300000 }
		local paths, _, image = layer.make(folder, ([[
			for size in (%s,):
				add('f%%d' %% size, data=bytes((size * 7 + i * 31 + i // 251) %% 251 for i in range(size)))
		]]):format(table.concat(sizes, ",")))
		for _, size in ipairs(sizes) do
			local bytes = {}
			for i = 0, size - 1 do bytes[i + 1] = string.char((size * 7 + i * 31 + i // 251) % 251) end
			assert.is_true(table.concat(bytes) == paths["f" .. size].data, "content of " .. size .. " bytes")
		end
		-- erofs-utils read the same as tar
		scratch.run(("cd '%s' && mkdir a && tar -xf layer.tar -C a && fsck.erofs --extract=b '%s' && diff -r a b")
			:format(folder, image))
	end)

	it("holds symlinks of any length", function()
		local paths = layer.make(folder, [[
			for n in (1, 2048, 2049, 4032, 4033, 4095):
				add('s%d' % n, 'symlink', to='t' * n)
		]])
		for _, n in ipairs { 1, 2048, 2049, 4032, 4033, 4095 } do assert.are.equal(("t"):rep(n), paths["s" .. n].target) end
	end)

	it("sorts directories of any size by bytes, with the dots among the rest", function()
		local paths = layer.make(folder, [[
			for n in (1, 2, 300, 20000):
				for i in range(n):
					add('d%d/entry-%d-%s' % (n, i, 'x' * (i % 40)))
			for name in ('!', '+', '-', '.a', '..b', '...', '0', '\u00e9', '~'):
				add('odd/' + name)
		]])
		for _, n in ipairs { 1, 2, 300, 20000 } do assert.are.equal(n, #paths["d" .. n].names) end
		assert.are.same({ "!", "+", "-", "...", "..b", ".a", "0", "~", "\u{e9}" }, paths.odd.names)
		-- directory sizes around the block's end
		local edge = layer.make(folder, [[
			for n in range(10, 24):
				for i in range(n):
					add('e%d/%s' % (n, chr(97 + i) * 240))
		]])
		for n = 10, 23 do assert.are.equal(n, #edge["e" .. n].names) end
	end)

	it("keeps names byte by byte", function()
		local paths = layer.make(folder, [[
			add('e\u0301-decomposed', data='1')
			add('\u00e9-composed', data='2')
			add('\u00e9/e\u0301', 'symlink', to='e\u0301')
			add('hard-\u00fc', 'link', to='e\u0301-decomposed')
			add('raw-\udcff\udc80', data='3')
			add('tab\tnewline\nquote"')
		]])
		assert.are.equal("1", paths["e\u{301}-decomposed"].data)
		assert.are.equal("2", paths["\u{e9}-composed"].data)
		assert.are.equal("e\u{301}", paths["\u{e9}/e\u{301}"].target)
		assert.are.equal(paths["e\u{301}-decomposed"], paths["hard-\u{fc}"])
		assert.are.equal("3", paths["raw-\xff\x80"].data)
		assert.is_not_nil(paths["tab\tnewline\nquote\""])
		local gnu = layer.make(folder, [[
			add('d/' * 60 + '\u00e9' * 100)
			add('raw-\udcff')
		]], { format = "GNU_FORMAT" })
		assert.is_not_nil(gnu[("d/"):rep(60) .. ("\u{e9}"):rep(100)])
		assert.is_not_nil(gnu["raw-\xff"])
	end)

	it("holds extended attributes", function()
		local paths, stats = layer.make(folder, [[
			cap = '\x01\x00\x00\x02\x00\x20' + '\x00' * 14
			add('ping', data='x', xattrs={'security.capability': cap, 'user.b': 'two\n=2', 'user.a': ''})
			add('acl', xattrs={'system.posix_acl_access': '\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff'})
			add('dir', 'dir', xattrs={'trusted.t': 'v'})
			add('large', data='L' * 2000, xattrs={'user.large': 'v' * 5000, 'user.other': 'w' * 4000})
			add('dropped', xattrs={'com.apple.x': 'y', 'user.kept': 'z', 'user.': 'nameless'})
			add('both', xattrs={'user.x': 'yes'}, pax={'LIBARCHIVE.xattr.user.x': 'eWVz'})
			add('up', xattrs={'user.a': '1', 'user.b': '2', 'security.c': '3'})
			add('down', xattrs={'security.c': '3', 'user.b': '2', 'user.a': '1'})
		]])
		local cap = "\1\0\0\2\0\x20" .. ("\0"):rep(14)
		assert.are.same({ ["security.capability"] = cap, ["user.b"] = "two\n=2", ["user.a"] = "" }, paths.ping.xattrs)
		assert.are.same({ ["system.posix_acl_access"] = "\2\0\0\0\1\0\6\0\xff\xff\xff\xff" }, paths.acl.xattrs)
		assert.are.same({ ["trusted.t"] = "v" }, paths.dir.xattrs)
		assert.are.same({ ["user.large"] = ("v"):rep(5000), ["user.other"] = ("w"):rep(4000) }, paths.large.xattrs)
		assert.are.equal(("L"):rep(2000), paths.large.data)
		assert.are.same({ ["user.kept"] = "z" }, paths.dropped.xattrs)
		assert.are.same({ ["user.x"] = "yes" }, paths.both.xattrs)
		assert.are.equal(2, stats.dropped_xattrs)
		-- in one order, whatever the tar's
		for _, name in ipairs { "up", "down" } do
			assert.are.same({ "user.a", "user.b", "security.c" }, paths[name].xattr_order)
		end
	end)

	it("lets a later entry replace an earlier one", function()
		local paths = layer.make(folder, [[
			add('twice', data='old'); add('twice', data='newer')
			add('kept', 'dir', mode=0o700); add('kept/in', data='1'); add('kept', 'dir', mode=0o750)
			add('gone', 'dir'); add('gone/in', data='1'); add('gone', data='file now')
			add('back', 'dir'); add('back/old'); add('back', data='file'); add('back', 'dir'); add('back/new')
			add('origin', data='same'); add('other', 'link', to='origin'); add('origin', data='changed')
			add('to-link'); add('to-link', 'symlink', to='x')
		]])
		assert.are.equal("newer", paths.twice.data)
		assert.are.same({ 488, { "in" } }, { paths.kept.mode, paths.kept.names })
		assert.are.same({ "file", "file now" }, { paths.gone.kind, paths.gone.data })
		assert.are.same({ "new" }, paths.back.names)
		-- Unpacked in order, the file would have replaced what lower layers have.
		assert.are.equal("y", paths.back.xattrs["trusted.overlay.opaque"])
		assert.is_nil(paths.kept.xattrs["trusted.overlay.opaque"])
		assert.are.same({ "changed", 1, "same", 1 },
			{ paths.origin.data, paths.origin.nlink, paths.other.data, paths.other.nlink })
		assert.are.equal("symlink", paths["to-link"].kind)
	end)

	it("turns whiteouts into overlayfs's, wherever they stand in the tar", function()
		local entries = {
			"add('d/.wh.hidden')", "add('d/.wh..wh..opq')", "add('d', 'dir', mode=0o700)", "add('d/kept', data='k')",
			"add('.wh.both')", "add('both', data='b')", "add('.wh.dir')", "add('dir/in', data='i')",
			"add('only/.wh.a')", "add('.wh..wh.plnk/1.2', data='x')", "add('.wh..wh.aufs')",
		}
		for _, order in ipairs { 1, -1 } do
			local code = {}
			for i = 1, #entries do code[i] = entries[order == 1 and i or #entries + 1 - i] end
			local paths, stats = layer.make(folder, table.concat(code, "\n"))
			for _, name in ipairs { "d/hidden", "only/a" } do
				local node = paths[name]
				assert.are.same({ "char", 0, 0, 0 }, { node.kind, node.major, node.minor, node.mode })
			end
			assert.are.same({ "hidden", "kept" }, paths.d.names)
			assert.are.same({ 448, { ["trusted.overlay.opaque"] = "y" } }, { paths.d.mode, paths.d.xattrs })
			assert.are.equal("b", paths.both.data)
			assert.are.same({ { "in" }, { ["trusted.overlay.opaque"] = "y" } }, { paths.dir.names, paths.dir.xattrs })
			assert.are.same({ "both", "d", "dir", "only" }, paths[""].names)
			assert.are.same({ 2, 2, 2, false },
				{ stats.whiteouts, stats.opaque_directories, stats.ignored, stats.root_opaque })
		end
		local paths, stats = layer.make(folder, "add('.wh..wh..opq')\nadd('a', xattrs={'user.x': 'y'})")
		assert.are.equal("y", paths[""].xattrs["trusted.overlay.opaque"])
		assert.is_true(stats.root_opaque)
	end)

	it("links hard in any order", function()
		local paths = layer.make(folder, [[
			add('a', 'link', to='b'); add('b', 'link', to='d/c'); add('d/c', data='c'); add('e', 'link', to='a')
			add('over', 'link', to='f'); add('over', data='own'); add('f')
		]])
		for _, name in ipairs { "b", "d/c", "e" } do assert.are.equal(paths.a, paths[name]) end
		assert.are.same({ "c", 4, "own" }, { paths.a.data, paths.a.nlink, paths.over.data })
	end)

	it("holds more hard links to one file than other file systems can", function()
		local paths = layer.make(folder, [[
			add('file', data='one')
			for i in range(66000): add('%x/%x' % (i >> 9, i), 'link', to='file')
		]])
		assert.are.equal(66001, paths.file.nlink)
		assert.are.equal(paths.file, paths["80/101cf"])
	end)

	it("holds paths as long and as deep as Linux takes", function()
		local long, deep = ("p"):rep(240) .. ("/" .. ("p"):rep(240)):rep(15), ("d/"):rep(2047) .. "f"
		long = long .. "/" .. ("q"):rep(4096 - #long - 1)
		assert.are.same({ 4096, 4095 }, { #long, #deep })
		for _, format in ipairs { "PAX_FORMAT", "GNU_FORMAT" } do
			local paths = layer.make(folder, ([[
				add('%s', data='long'); add('%s', data='deep'); add('k', 'link', to='%s'); add('l', 'link', to='%s')
				add('.wh.' + 'w' * 255)
			]]):format(long, deep, long, deep), { format = format })
			assert.are.same({ "long", "deep" }, { paths[long].data, paths[deep].data })
			assert.are.same({ paths[long], paths[deep] }, { paths.k, paths.l })
			assert.are.equal("char", paths[("w"):rep(255)].kind)
		end
	end)

	it("holds times to the nanosecond, before 1970 too", function()
		local paths = layer.make(folder, [[
			for name, time in (('after', '1700000000.000000001'), ('before', '-7.25'), ('whole', '-8'),
					('early', '-62135596800.999999999'), ('late', '253402300799.5')):
				add(name, pax={'mtime': time})
		]])
		local times = {}
		for name, node in pairs(paths) do times[name] = { node.mtime, node.mtime_nsec } end
		times[""] = nil
		assert.are.same({ after = { 1700000000, 1 }, before = { -8, 750000000 }, whole = { -8, 0 },
			early = { -62135596801, 1 }, late = { 253402300799, 500000000 } }, times)
	end)

	it("holds binary values of extended attributes", function()
		-- as Go's, Python's and GNU's tar write them, and base64 in libarchive's own key
		local paths = layer.make(folder, [[
			import base64
			every = ''.join(map(chr, range(256)))
			add('schily', xattrs={'user.b': every, 'user.nul': '\x00\x00'})
			add('libarchive', pax={'LIBARCHIVE.xattr.user.b': base64.b64encode(bytes(range(256))).decode()})
		]])
		local every = {}
		for i = 0, 255 do every[i + 1] = string.char(i) end
		every = table.concat(every)
		assert.are.same({ ["user.b"] = every, ["user.nul"] = "\x00\x00" }, paths.schily.xattrs)
		assert.are.same({ ["user.b"] = every }, paths.libarchive.xattrs)
	end)

	it("takes old tars as well: ustar, GNU's, v7", function()
		for _, format in ipairs { "USTAR_FORMAT", "GNU_FORMAT" } do
			local paths = layer.make(folder, [[
				add('d' * 90 + '/' + 'n' * 90, data='long', mtime=77, uid=1234567, mode=0o6755)
				add('s', 'symlink', to='t' * 90)
			]], { format = format })
			local file = paths[("d"):rep(90) .. "/" .. ("n"):rep(90)]
			assert.are.same({ "long", 77, 1234567, tonumber("6755", 8) }, { file.data, file.mtime, file.uid, file.mode })
			assert.are.equal(("t"):rep(90), paths.s.target)
		end
		scratch.run(("cd '%s' && mkdir v && echo -n seven >v/f && ln v/f v/l && tar --format=v7 -cf v7.tar -C v .")
			:format(folder))
		assert(layer.bake(folder .. "/v7.tar", folder .. "/v7.erofs"))
		local reader <close> = erofs.open(folder .. "/v7.erofs")
		local paths = reader:tree()
		assert.are.equal("seven", reader:read(paths.f))
		assert.are.equal(paths.f, paths.l)
	end)

	it("strips leading slashes and empty parts of names", function()
		local paths = layer.make(folder, [[
			add('/abs//./file', data='a')
			add('/link', 'link', to='/abs/file')
			add('old-dir/', 'file')
		]])
		assert.are.equal("a", paths["abs/file"].data)
		assert.are.equal(paths["abs/file"], paths.link)
		assert.are.equal("directory", paths["old-dir"].kind)
	end)

	describe("of sparse files", function()
		local function sparse(format, make)
			scratch.run(("cd '%s' && rm -rf in && mkdir in && cd in && %s && tar --sort=name %s -Scf ../layer.tar .")
				:format(folder, make, format))
			local image = folder .. "/layer.erofs"
			os.remove(image)
			assert(layer.bake(folder .. "/layer.tar", image))
			layer.fsck(image)
			return image
		end

		for _, format in ipairs { "--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1",
			"--format=pax --sparse-version=1.0" } do
			it("keeps content and holes with " .. format, function()
				local image = sparse(format, [[truncate -s 1M hole; truncate -s 10000 small;
					printf start >mid; truncate -s 300000 mid; printf middle >>mid; truncate -s 600000 mid; printf end >>mid;
					truncate -s 70000 tail; printf t >>tail; truncate -s 8192 end; dd if=/dev/urandom of=dense bs=10000 count=1 2>&1;
					for i in 1 2 3 4 5 6 7 8 9; do printf "$i" | dd of=many bs=1 seek=$((i * 40961)) conv=notrunc 2>&1; done]])
				-- (not by fsck.erofs --extract: version 1.5 leaves holes out)
				local reader <close> = erofs.open(image)
				local paths = reader:tree()
				for _, name in ipairs { "dense", "end", "hole", "many", "mid", "small", "tail" } do
					assert.is_true(scratch.read(folder .. "/in/" .. name) == reader:read(paths[name]), name)
					assert.are.equal(name ~= "dense", paths[name].layout == 4, name)
				end
				assert.are.equal(4, reader.super.incompat)
			end)
		end

		it("larger than 4 GiB stays small", function()
			local image = sparse("--format=pax", [[printf first >big; truncate -s 5G big; printf last >>big;
				printf between | dd of=big bs=1M seek=3000 conv=notrunc 2>&1; truncate -s 9T hole]])
			local size = tonumber(scratch.run(("stat -c %%s '%s'"):format(image)))
			assert.is_true(size < (2 << 20), "image of " .. size)
			local reader <close> = erofs.open(image)
			local paths = reader:tree()
			assert.are.equal((5 << 30) + 4, paths.big.size)
			assert.are.equal("first\0", reader:read(paths.big, 0, 6))
			assert.are.equal("\0between\0", reader:read(paths.big, (3000 << 20) - 1, 9))
			assert.are.equal("\0last", reader:read(paths.big, (5 << 30) - 1))
			assert.are.equal(("\0"):rep(100), reader:read(paths.big, (4 << 30) - 50, 100))
			assert.are.same({ 9 << 40, "\0\0" }, { paths.hole.size, reader:read(paths.hole, (9 << 40) - 2) })
		end)

		it("with holes smaller than its chunks keeps every byte", function()
			-- 600 MiB: chunks of 16 KiB; data and holes of 4 KiB, ends in a tail
			local image = sparse("--format=pax", [[truncate -s 600M big; for i in 0 2 3 9 153599; do
				printf "<$i>" | dd of=big bs=4096 seek=$i conv=notrunc 2>&1; done; printf tail >>big]])
			local reader <close> = erofs.open(image)
			local big = reader:tree().big
			for _, i in ipairs { 0, 2, 3, 9, 153599 } do
				local text = ("<%d>"):format(i)
				assert.are.equal(text .. "\0", reader:read(big, i * 4096, #text + 1))
			end
			assert.are.equal(("\0"):rep(4093), reader:read(big, 4099, 4093))
			assert.are.equal("tail", reader:read(big, 600 << 20))
		end)
	end)

	it("keeps a large file's tail after a hole in the chunk that holds both", function()
		-- Chunks are 8 KiB above 256 MiB; content up to the last chunk, there a hole, then the tail.
		local start = 32769 * 8192
		layer.tar(folder .. "/layer.tar", ([[
			sparse('f', %d, '2 0 %d %d 4', b'\0' * %d + b'tail')
		]]):format(start + 4100, start, start + 4096, start))
		assert(layer.bake(folder .. "/layer.tar", folder .. "/layer.erofs"))
		layer.fsck(folder .. "/layer.erofs")
		local reader <close> = erofs.open(folder .. "/layer.erofs")
		local file = reader:tree().f
		assert.are.equal("\0tail", reader:read(file, start + 4095))
	end)

	it("is the same bytes for the same layer, however packed and wherever baked", function()
		layer.tar(folder .. "/a.tar", [[
			import random
			random.seed(1)
			names = ['d%d/f%d' % (i % 13, i) for i in range(400)]
			for name in names:
				add(name, data=random.randbytes(random.randrange(9000)), mtime=random.randrange(2**31), xattrs={'user.a': name})
			for i in range(50):
				add('l%d' % i, 'link', to=names[random.randrange(400)])
		]])
		scratch.run(("cd '%s' && gzip -k a.tar && zstd -q a.tar -o a.zst && cat a.tar >copy"):format(folder))
		-- Members, frames and streams one behind the other, and what zstd skips, are one layer; what gzip is padded with is
		-- none of it.
		scratch.write(folder .. "/pack.py", PACKINGS)
		scratch.run(("cd '%s' && python3 pack.py"):format(folder))
		local first = assert(layer.bake(folder .. "/a.tar", folder .. "/1.erofs"))
		layer.fsck(folder .. "/1.erofs")
		local packed = { "a.tar.gz", "a.zst", "copy", "a.members", "a.padded", "a.junk", "a.frames", "a.bz2",
			"a.streams", "a.xz" }
		for i, name in ipairs(packed) do
			local out = ("%s/%d.erofs"):format(folder, i + 1)
			local stats = assert(layer.bake(folder .. "/" .. name, out, { diff_id = first.diff_id }))
			assert.is_false(stats.reused)
			assert.is_true(scratch.read(out) == scratch.read(folder .. "/1.erofs"), name)
		end
		assert.are.equal("sha256:" .. scratch.run(("sha256sum <'%s/a.tar'"):format(folder)):match "^%x+", first.diff_id)
	end)

	it("of an empty layer is an empty directory", function()
		local paths = layer.make(folder, "")
		assert.are.same({}, paths[""].names)
		scratch.write(folder .. "/nothing", "")
		assert(layer.bake(folder .. "/nothing", folder .. "/nothing.erofs"))
		layer.fsck(folder .. "/nothing.erofs")
	end)
end)
