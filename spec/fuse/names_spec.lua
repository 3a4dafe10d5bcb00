-- What makes, moves and removes names.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local S, O = fuse.S, fuse.O

describe("a FUSE folder's names", function()
	local temporary, mount
	local function open(options)
		if mount then mount:close() end
		options.host = temporary.path
		mount = assert(fuse.new(options))
		return mount
	end
	before_each(function()
		temporary = folder.new()
		open {}
	end)
	after_each(function()
		mount:close()
		mount = nil
		temporary:close()
	end)
	local function stat(name, format) return scratch.run(("stat -c '%s' %s"):format(format, temporary:join(name))) end

	it("are found, and the same file is the same node", function()
		temporary:write("a/b", "12345")
		scratch.run(("ln %s %s"):format(temporary:join "a/b", temporary:join "c"))
		local a = assert(mount:lookup(1, "a"))
		assert.are.equal(S.DIR, a.attr.mode & S.FMT)
		local b = assert(mount:lookup(a.node, "b"))
		assert.are.same({ 5, 2, S.REG }, { b.attr.size, b.attr.nlink, b.attr.mode & S.FMT })
		assert.are.equal(b.node, assert(mount:lookup(a.node, "b")).node)
		assert.are.equal(b.node, assert(mount:lookup(1, "c")).node)
		assert.are.equal(2, mount:stats().nodes)
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "b") })
		assert.are.same({ nil, "ENOTDIR" }, { mount:lookup(b.node, "x") })
	end)

	it("are forgotten when the guest says so", function()
		temporary:write("a/b", "")
		local a = assert(mount:lookup(1, "a"))
		local b = assert(mount:lookup(a.node, "b"))
		assert(mount:lookup(a.node, "b"))
		mount:forget(a.node)
		assert.are.equal(2, mount:stats().nodes) -- the child keeps it
		mount:forget(b.node)
		assert.is_truthy(mount:getattr(b.node))
		mount:forget(b.node)
		assert.are.equal(0, mount:stats().nodes)
		assert.are.equal(0, mount:stats().hostile)
		assert.are.same({ nil, "ESTALE" }, { mount:getattr(b.node) })
	end)

	it("are forgotten by the dozen", function()
		local nodes, body = {}, ""
		for i = 1, 200 do
			nodes[i] = assert(mount:mkdir(1, "d" .. i)).node
			body = body .. ("<I8I8"):pack(nodes[i], 1)
		end
		assert.are.equal(200, mount:stats().nodes)
		assert.are.same({ nil, "no reply" }, { mount:call("BATCH_FORGET", 0, ("<I4I4"):pack(200, 0) .. body) })
		assert.are.equal(0, mount:stats().nodes)
		assert.are.equal(0, mount:stats().hostile)
	end)

	it("are made: folders, files, fifos, sockets", function()
		local d = assert(mount:mkdir(1, "d", 448))
		assert.are.equal("700 directory", stat("d", "%a %F"))
		assert.are.same({ nil, "EEXIST" }, { mount:mkdir(1, "d") })
		assert(mount:mknod(d.node, "f", S.REG | 416))
		assert(mount:mknod(d.node, "plain", 384))
		assert(mount:mknod(d.node, "p", S.FIFO | 438))
		assert(mount:mknod(d.node, "s", S.SOCK | 438))
		assert.are.equal("640 regular empty file", stat("d/f", "%a %F"))
		assert.are.equal("600 regular empty file", stat("d/plain", "%a %F"))
		assert.are.equal("666 fifo", stat("d/p", "%a %F"))
		assert.are.equal("666 socket", stat("d/s", "%a %F"))
		assert.are.same({ nil, "EEXIST" }, { mount:mknod(d.node, "f", S.REG) })
		assert.are.same({ nil, "EINVAL" }, { mount:mknod(d.node, "x", S.DIR) })
		assert.are.same({ nil, "EINVAL" }, { mount:mknod(d.node, "x", S.LNK) })
		for _, type in ipairs { S.BLK, S.CHR } do
			assert.are.same({ nil, "EPERM" }, { mount:mknod(d.node, "x", type | 438, 0x103) })
		end
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(d.node, "x") })
	end)

	it("have the mode that was asked for, whatever umask the host has", function()
		-- This process's is not 0: else the spec would say nothing.
		assert.are_not.equal("0000", scratch.run "umask")
		assert(mount:mkdir(1, "d", 511))
		assert(mount:mknod(1, "f", S.REG | 511))
		local c = assert(mount:create(1, "c", O.RDWR, 438))
		assert(mount:create(1, "suid", O.RDWR, 2541)) -- 04755
		local modes = {}
		for i, name in ipairs { "d", "f", "c", "suid" } do modes[i] = stat(name, "%a") end
		assert.are.same({ "777", "777", "666", "4755" }, modes)
		assert.are.equal(438, c.attr.mode & 511)
	end)

	it("keep a folder's default ACL", function()
		local d = assert(mount:mkdir(1, "d", 511))
		-- u::rwx,g::r-x,o::---
		local acl = "02000000 01000700ffffffff 04000500ffffffff 20000000ffffffff"
		scratch.run(("python3 -c 'import os; os.setxattr(\"%s\", \"system.posix_acl_default\", bytes.fromhex(\"%s\"))'")
			:format(temporary:join "d", acl))
		assert(mount:create(d.node, "f", O.RDWR, 438))
		assert.are.equal("640", stat("d/f", "%a"))
	end)

	it("are made and opened at once", function()
		local new = assert(mount:create(1, "f", O.RDWR | O.EXCL, 420))
		assert.are.equal(3, mount:write(new.node, new.fh, 0, "abc"))
		assert.are.same({ nil, "EEXIST" }, { mount:create(1, "f", O.RDWR | O.EXCL, 420) })
		local old = assert(mount:create(1, "f", O.RDWR, 420))
		assert.are.equal(new.node, old.node)
		assert.are.equal("abc", mount:read(old.node, old.fh, 0, 10))
		local cut = assert(mount:create(1, "f", O.RDWR | O.TRUNC, 420))
		assert.are.equal("", mount:read(cut.node, cut.fh, 0, 10))
		-- What is no file is looked at again by the guest, and neither followed nor opened.
		temporary:write("target", "secret")
		scratch.run(("cd %s && ln -s target link && mkfifo fifo && mkdir dir"):format(temporary.path))
		for name, code in pairs { link = "ESTALE", fifo = "ESTALE", dir = "EISDIR" } do
			assert.are.same({ nil, code }, { mount:create(1, name, O.RDWR | O.TRUNC, 420) })
		end
		assert.are.equal("secret", scratch.read(temporary:join "target"))
	end)

	it("are removed", function()
		local d = assert(mount:mkdir(1, "d"))
		assert(mount:create(d.node, "f"))
		assert.are.same({ nil, "ENOTEMPTY" }, { mount:rmdir(1, "d") })
		assert.are.same({ nil, "EISDIR" }, { mount:unlink(1, "d") })
		assert.are.same({ nil, "ENOTDIR" }, { mount:rmdir(d.node, "f") })
		assert.are.same({ nil, "ENOENT" }, { mount:unlink(d.node, "g") })
		assert.is_true(mount:unlink(d.node, "f"))
		assert.is_true(mount:rmdir(1, "d"))
		assert.are.equal("", scratch.run("ls -A " .. temporary.path))
	end)

	it("may go while the file is open", function()
		local new = assert(mount:create(1, "f"))
		assert.are.equal(3, mount:write(new.node, new.fh, 0, "abc"))
		assert.is_true(mount:unlink(1, "f"))
		assert.are.equal("abc", mount:read(new.node, new.fh, 0, 10))
		assert.are.same({ 3, 0 }, { mount:getattr(new.node).size, mount:getattr(new.node).nlink }) -- fstat names no handle
		assert.are.equal(2, mount:setattr(new.node, { size = 2 }).size)
		assert.is_true(mount:release(new.node, new.fh))
	end)

	it("may go, or be another's, while the guest knows the file by them alone", function()
		temporary:write("f", "abc")
		temporary:write("g", "defg")
		temporary:write("d/x", "")
		local f, g, d = assert(mount:lookup(1, "f")), assert(mount:lookup(1, "g")), assert(mount:lookup(1, "d"))
		local x = assert(mount:lookup(d.node, "x"))
		assert.is_true(mount:unlink(d.node, "x"))
		assert.is_true(mount:rmdir(1, "d"))
		assert.is_true(mount:rename(1, "f", 1, "g"))
		assert.are.same({ 4, 0 }, { mount:getattr(g.node).size, mount:getattr(g.node).nlink })
		assert.are.equal(2, mount:setattr(g.node, { size = 2 }).size)
		assert.is_true(mount:unlink(1, "g"))
		assert.are.same({ 3, 0 }, { mount:getattr(f.node).size, mount:getattr(f.node).nlink })
		assert.are.equal(0, mount:getattr(x.node).nlink)
		assert.are.equal(S.DIR, mount:getattr(d.node).mode & S.FMT)
		assert.are.equal(0, mount:stats().stale)
	end)

	it("move, and nodes move with them", function()
		temporary:write("a/b/c", "deep")
		local a = assert(mount:lookup(1, "a"))
		local b = assert(mount:lookup(a.node, "b"))
		assert(mount:mkdir(1, "new"))
		local new = assert(mount:lookup(1, "new"))
		assert.is_true(mount:rename(a.node, "b", new.node, "moved"))
		assert.are.equal("deep", mount:content(b.node, "c"))
		assert.are.equal(b.node, assert(mount:lookup(new.node, "moved")).node)
		assert.are.same({ nil, "ENOENT" }, { mount:rename(a.node, "b", 1, "x") })
		assert.are.same({ nil, "EINVAL" }, { mount:rename(1, "new", b.node, "x") }) -- below itself
	end)

	it("move without replacing, or change places", function()
		temporary:write("one", "1")
		temporary:write("two", "2")
		assert.are.same({ nil, "EEXIST" }, { mount:rename(1, "one", 1, "two", 1) })
		local one, two = assert(mount:lookup(1, "one")), assert(mount:lookup(1, "two"))
		assert.is_true(mount:rename(1, "one", 1, "two", 2))
		assert.are.equal("2", mount:content(1, "one"))
		assert.are.equal(one.node, mount:lookup(1, "two").node)
		assert.are.equal(two.node, mount:lookup(1, "one").node)
		assert.is_true(mount:rename(1, "one", 1, "three", 1))
		for _, flags in ipairs { 4, 3, 8, 0x80000000 } do
			assert.are.same({ nil, "EINVAL" }, { mount:rename(1, "two", 1, "four", flags) })
		end
		assert.is_true(mount:rename(1, "three", 1, "two"))
		assert.are.equal("2", mount:content(1, "two"))
	end)

	it("may be two of one file", function()
		local f = assert(mount:create(1, "f"))
		local d = assert(mount:mkdir(1, "d"))
		local link = assert(mount:link(f.node, d.node, "g"))
		assert.are.same({ f.node, 2 }, { link.node, link.attr.nlink })
		assert.are.same({ nil, "EEXIST" }, { mount:link(f.node, d.node, "g") })
		assert.are.same({ nil, "EPERM" }, { mount:link(d.node, 1, "x") })
		assert.are.same({ nil, "ESTALE" }, { mount:link(999, 1, "x") })
		-- A link itself, not where it leads.
		local s = assert(mount:symlink(1, "s", "nowhere"))
		assert.are.equal(s.node, assert(mount:link(s.node, 1, "t")).node)
		assert.are.equal("nowhere", mount:readlink(s.node))
		assert.are.equal("symbolic link", stat("t", "%F"))
	end)

	it("come later to a file that had none", function()
		local new = assert(mount:tmpfile(1))
		assert.are.equal(3, mount:write(new.node, new.fh, 0, "abc"))
		assert.are.equal("", scratch.run("ls -A " .. temporary.path))
		assert.are.equal(384, mount:getattr(new.node).mode & 511)
		assert(mount:link(new.node, 1, "now"))
		assert.is_true(mount:release(new.node, new.fh))
		assert.are.equal("abc", scratch.read(temporary:join "now"))
		assert.are.equal("abc", mount:content(1, "now"))
		local f = mount:lookup(1, "now")
		assert.are.same({ nil, "ENOTDIR" }, { mount:tmpfile(f.node) })
	end)

	it("are what the kernel lets them be, byte for byte", function()
		for _, name in ipairs { "...", " ", "\xff\xfe", "a\nb", ("x"):rep(255), "..a", "\\", "~" } do
			local new = assert(mount:create(1, name), name)
			assert.are.equal(new.node, assert(mount:lookup(1, name)).node)
			assert.is_truthy(mount:list(1, true)[name])
			assert.is_true(mount:unlink(1, name))
		end
	end)

	it("are not changed where the mount is for reading", function()
		temporary:write("d/f", "12")
		open { readonly = true }
		local d = assert(mount:lookup(1, "d"))
		local f = assert(mount:lookup(d.node, "f"))
		local node = d.node
		for name, call in pairs {
			mkdir = function() return mount:mkdir(node, "x") end,
			mknod = function() return mount:mknod(node, "x", S.REG | 420) end,
			symlink = function() return mount:symlink(node, "x", "y") end,
			link = function() return mount:link(f.node, node, "x") end,
			create = function() return mount:create(node, "x") end,
			["create what is there"] = function() return mount:create(node, "f") end,
			tmpfile = function() return mount:tmpfile(node) end,
			unlink = function() return mount:unlink(node, "f") end,
			rmdir = function() return mount:rmdir(1, "d") end,
			rename = function() return mount:rename(node, "f", node, "g") end,
			rename2 = function() return mount:rename(node, "f", node, "g", 0) end,
			setattr = function() return mount:setattr(f.node, { mode = 0 }) end,
			truncate = function() return mount:setattr(f.node, { size = 0 }) end,
			setxattr = function() return mount:setxattr(f.node, "user.x", "1") end,
			removexattr = function() return mount:removexattr(f.node, "user.x") end,
			["open to write"] = function() return mount:open(f.node, O.WRONLY) end,
			["open to read and write"] = function() return mount:open(f.node, O.RDWR) end,
			["open and cut"] = function() return mount:open(f.node, O.RDONLY | O.TRUNC) end,
			access = function() return mount:access(f.node, 2) end,
			write = function() return mount:write(f.node, 0, 0, "x") end,
			fallocate = function() return mount:fallocate(f.node, 0, 0, 0, 100) end,
			copy = function() return mount:copy(f.node, 0, 0, f.node, 0, 0, 1) end,
		} do
			assert.are.same({ name, nil, "EROFS" }, { name, call() })
		end
		assert.are.equal("12", mount:content(node, "f"))
		assert.is_true(mount:access(f.node, 4))
	end)

	it("are one alone where the mount is a single file", function()
		temporary:write("one", "1")
		temporary:write("other", "2")
		for _, plus in ipairs { false, true } do
			open { only = "one" }
			local list = mount:list(1, plus)
			assert.is_truthy(list["."] and list[".."] and list.one)
			assert.is_nil(list.other)
		end
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "other") })
		local root = mount:getattr(1)
		assert.are.same({ S.DIR | 365, 2 }, { root.mode, root.nlink })
		local one = assert(mount:lookup(1, "one"))
		assert.are.equal("1", mount:content(1, "one"))
		assert.are.equal(one.node, assert(mount:create(1, "one", O.RDWR)).node)
		assert.are.same({ nil, "EEXIST" }, { mount:create(1, "one", O.RDWR | O.EXCL) })
		for name, call in pairs {
			mkdir = function() return mount:mkdir(1, "x") end,
			mknod = function() return mount:mknod(1, "x", S.REG) end,
			create = function() return mount:create(1, "x") end,
			["create the other"] = function() return mount:create(1, "other") end,
			symlink = function() return mount:symlink(1, "x", "one") end,
			link = function() return mount:link(one.node, 1, "x") end,
			tmpfile = function() return mount:tmpfile(1) end,
			unlink = function() return mount:unlink(1, "other") end,
			setattr = function() return mount:setattr(1, { mode = 511 }) end,
			["rename the other"] = function() return mount:rename(1, "other", 1, "x") end,
		} do
			assert.are.same({ name, nil, "EPERM" }, { name, call() })
		end
		assert.are.same({ nil, "EBUSY" }, { mount:unlink(1, "one") })
		assert.are.same({ nil, "EBUSY" }, { mount:rename(1, "one", 1, "x") })
		-- Changed by the host into what it was not.
		scratch.run(("cd %s && rm one && ln -s other one"):format(temporary.path))
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "one") })
		assert.are.equal("2", scratch.read(temporary:join "other"))
	end)
end)
