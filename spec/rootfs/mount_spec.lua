-- What Linux itself makes of the images: needs root, loop devices and the erofs file system.
local core = require "supermachine.core"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

describe("Linux #lab", function()
	local folder
	-- On a file system of their own: extended attributes and device nodes need a real one.
	before_each(function()
		folder = scratch.folder()
		scratch.run(("mount -t tmpfs -o size=1g,mode=755 tmpfs '%s'"):format(folder))
	end)
	after_each(function()
		scratch.run(("umount -R '%s'"):format(folder))
		scratch.remove(folder)
	end)

	local function mount(image, name)
		local point = folder .. "/" .. name
		scratch.run(("mkdir '%s' && mount -t erofs -o loop,ro '%s' '%s'"):format(point, image, point))
		return point
	end

	local function list(root)
		return scratch.run(("LC_ALL=C.UTF-8 python3 spec/support/list_tree.py '%s'"):format(root))
	end

	local function assert_same_lists(expected, got)
		if expected == got then return end
		scratch.write(folder .. "/expected", expected .. "\n")
		scratch.write(folder .. "/got", got .. "\n")
		scratch.run(("diff '%s/expected' '%s/got'"):format(folder, folder))
	end

	it("shows what tar unpacks", function()
		layer.tar(folder .. "/layer.tar", [[
			import random
			random.seed(3)
			add('./', 'dir', mode=0o751, uid=5, gid=6, mtime=1234567890)
			add('bin', 'dir', mtime=1)
			for size in (0, 1, 100, 2048, 2049, 4096, 4097, 6000, 50000, 1000000):
				add('bin/f%d' % size, data=random.randbytes(size), mode=0o4755, uid=size, mtime=size + 0.5)
			add('hard', 'link', to='bin/f50000')
			add('hard2', 'link', to='bin/f100')
			add('short', 'symlink', to='bin/f1', mode=0o777, mtime=7)
			add('long', 'symlink', to='l' * 3000, mode=0o777, mtime=8)
			add('longest', 'symlink', to='l' * 4095, mode=0o777, mtime=9)
			add('zero', 'char', dev=(1, 5), mode=0o666, mtime=3)
			add('disk', 'block', dev=(259, 70000), mtime=3)
			add('fifo', 'fifo', mtime=3)
			add('many', 'dir', mtime=4)
			for i in range(1000):
				add('many/%d-%s' % (i, 'n' * (i % 60)), mtime=i)
			add('\u00e9/e\u0301\u4e16', data='u', mtime=5)
			add('\u00e9', 'dir', mtime=5)
			add('n' * 255, mtime=6)
			cap = '\x01\x00\x00\x02\x00\x20' + '\x00' * 14
			add('ping', data='p' * 3000, mtime=6, xattrs={'security.capability': cap})
			add('trusted', 'dir', mtime=6, xattrs={'trusted.a': 'v' * 3000, 'trusted.b': ''})
		]])
		scratch.run(("cd '%s' && mkdir t && tar --xattrs --xattrs-include='*' --numeric-owner -xpf layer.tar -C t")
			:format(folder))
		assert(layer.bake(folder .. "/layer.tar", folder .. "/layer.erofs"))
		layer.fsck(folder .. "/layer.erofs")
		local expected = list(folder .. "/t")
		assert.is_truthy(expected:find("security.capability", 1, true))
		assert_same_lists(expected, list(mount(folder .. "/layer.erofs", "e")))
		-- Every name is found, not only listed: binary search over many blocks.
		scratch.run(("cd '%s/e/many' && ls | xargs stat -c %%s >/dev/null && ! stat none ' ' '~' 2>/dev/null"):format(folder))
	end)

	it("reads sparse files, large ones too", function()
		scratch.run(("cd '%s' && mkdir t && cd t && "):format(folder) .. [[
			printf first >big; truncate -s 5G big; printf last >>big;
			printf between | dd of=big bs=1M seek=3000 conv=notrunc 2>&1; truncate -s 9T hole; truncate -s 10000 small;
			for i in 1 2 3 4 5 6 7 8 9; do printf "$i" | dd of=many bs=1 seek=$((i * 40961)) conv=notrunc 2>&1; done
			truncate -s 300000 tail; printf tail >>tail; tar --format=pax -Scf ../layer.tar .]])
		assert(layer.bake(folder .. "/layer.tar", folder .. "/layer.erofs"))
		layer.fsck(folder .. "/layer.erofs")
		mount(folder .. "/layer.erofs", "e")
		scratch.run(("cd '%s' && for f in many small tail; do cmp t/$f e/$f || exit 1; done"):format(folder))
		local function read(name, offset, count)
			local file <close> = assert(io.open(folder .. "/e/" .. name, "rb"))
			assert(file:seek("set", offset))
			return file:read(count)
		end
		assert.are.equal("first\0", read("big", 0, 6))
		assert.are.equal("\0between\0", read("big", (3000 << 20) - 1, 9))
		assert.are.equal(("\0"):rep(100), read("big", (4 << 30) - 50, 100))
		assert.are.equal("\0last", read("big", (5 << 30) - 1, 10))
		assert.are.equal("\0\0", read("hole", (9 << 40) - 2, 10))
	end)

	it("sees layers through overlayfs as the image means them", function()
		layer.tar(folder .. "/lower.tar", [[
			for name in ('kept', 'removed', 'replaced', 'dir/a', 'dir/b', 'opaque/old', 'renewed/old', 'gone/deep/file',
					'tofile/x'):
				add(name, data='lower')
		]])
		layer.tar(folder .. "/upper.tar", [[
			add('.wh.removed'); add('replaced', data='upper'); add('dir/.wh.a'); add('dir/c', data='upper')
			add('opaque/new', data='upper'); add('opaque/.wh..wh..opq')
			add('renewed/new', data='upper'); add('.wh.renewed')
			add('gone/.wh.deep'); add('tofile', data='upper')
		]])
		for _, name in ipairs { "lower", "upper" } do
			assert(layer.bake(folder .. "/" .. name .. ".tar", folder .. "/" .. name .. ".erofs"))
		end
		-- The layers are partitions of one disk, as a guest sees them.
		assert(core.composite({ folder .. "/lower.erofs", folder .. "/upper.erofs" }, folder .. "/disk"))
		local loop = scratch.run(("losetup -P -r --show -f '%s/disk'"):format(folder))
		local ok, message = pcall(scratch.run, ([[cd '%s' && mkdir l u m &&
			mount -t erofs -o ro %sp1 l && mount -t erofs -o ro %sp2 u && mount -t overlay -o ro,lowerdir=u:l overlay m &&
			cd m && find . -type f | LC_ALL=C sort | while read -r f; do echo "$f $(cat "$f")"; done]])
			:format(folder, loop, loop))
		local names = scratch.run(("cat /sys/block/%s/*/uevent | grep PARTNAME"):format(loop:match "[^/]+$"))
		pcall(scratch.run, ("cd '%s' && umount m; umount u; umount l; losetup -d %s"):format(folder, loop))
		assert(ok, message)
		assert.are.equal(table.concat({
			"./dir/b lower", "./dir/c upper", "./kept lower", "./opaque/new upper", "./renewed/new upper", "./replaced upper",
			"./tofile upper",
		}, "\n"), message)
		assert.are.equal("PARTNAME=layer-0\nPARTNAME=layer-1", names)
	end)

	it("has a full disk named, with nothing left on it", function()
		layer.tar(folder .. "/layer.tar", "for i in range(40):\n add('f%d' % i, data='x' * 100000)")
		for _, size in ipairs { "64k", "1m", "3900k" } do
			scratch.run(("mkdir -p '%s/small' && mount -t tmpfs -o size=%s tmpfs '%s/small'"):format(folder, size, folder))
			local stats, message, code = layer.bake(folder .. "/layer.tar", folder .. "/small/layer.erofs")
			local left = scratch.files(folder .. "/small")
			scratch.run(("umount '%s/small'"):format(folder))
			assert.is_nil(stats)
			assert.are.equal("ENOSPC", code)
			assert.is_truthy(message:find("layer.erofs", 1, true), message)
			assert.are.same({}, left)
		end
		scratch.run(("mount -t tmpfs -o size=64k tmpfs '%s/small'"):format(folder))
		local entries = { { path = "init", data = ("x"):rep(1 << 20) } }
		local fine, message, code = core.initramfs(folder .. "/small/initramfs", entries)
		local left = scratch.files(folder .. "/small")
		scratch.run(("umount '%s/small'"):format(folder))
		assert.is_nil(fine)
		assert.are.equal("ENOSPC", code, message)
		assert.are.same({}, left)
	end)
end)
