-- Extended attributes and file flags.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

describe("FUSE attributes that are extended", function()
	local temporary, mount, f
	local function open(options)
		if mount then mount:close() end
		options.host = temporary.path
		mount = assert(fuse.new(options))
		f = assert(mount:lookup(1, "f")).node
	end
	local function host(code)
		return scratch.run(("python3 -c 'import os; p = \"%s\"; %s'"):format(temporary:join "f", code))
	end
	before_each(function()
		temporary = folder.new()
		temporary:write("f", "")
		open {}
	end)
	after_each(function()
		mount:close()
		mount = nil
		temporary:close()
	end)

	it("are set, read, listed and removed", function()
		assert.are.same({ nil, "ENODATA" }, { mount:getxattr(f, "user.a") })
		assert.is_true(mount:setxattr(f, "user.a", "one"))
		assert.is_true(mount:setxattr(f, "user.empty", ""))
		assert.are.equal("b'one'", host 'print(os.getxattr(p, "user.a"))')
		assert.are.equal("one", mount:getxattr(f, "user.a"))
		assert.are.equal("", mount:getxattr(f, "user.empty"))
		assert.are.equal(3, mount:getxattr(f, "user.a", 0))
		assert.are.same({ nil, "ERANGE" }, { mount:getxattr(f, "user.a", 2) })
		assert.are.equal(#"user.a\0user.empty\0", mount:listxattr(f, 0))
		assert.are.equal("user.a\0user.empty\0", mount:listxattr(f))
		assert.are.same({ nil, "ERANGE" }, { mount:listxattr(f, 5) })
		assert.are.same({ nil, "EEXIST" }, { mount:setxattr(f, "user.a", "x", 1) })
		assert.are.same({ nil, "ENODATA" }, { mount:setxattr(f, "user.b", "x", 2) })
		assert.is_true(mount:removexattr(f, "user.a"))
		assert.are.same({ nil, "ENODATA" }, { mount:removexattr(f, "user.a") })
		local big = ("v"):rep(2000)
		assert.is_true(mount:setxattr(f, "user.big", big))
		mount.piece = 7
		assert.are.equal(big, mount:getxattr(f, "user.big"))
		assert.is_true(mount:setxattr(f, "user.big", "small"))
	end)

	it("pass by name", function()
		host 'os.setxattr(p, "user.mine", b"1"); os.setxattr(p, "user.other", b"2")'
		open { xattrs = "user.m*,security.capability" }
		assert.are.equal("1", mount:getxattr(f, "user.mine"))
		assert.are.equal("user.mine\0", mount:listxattr(f))
		assert.are.equal(#"user.mine\0", mount:listxattr(f, 0))
		assert.are.same({ nil, "ENODATA" }, { mount:getxattr(f, "user.other") })
		assert.are.same({ nil, "ENODATA" }, { mount:removexattr(f, "user.other") })
		for _, name in ipairs { "user.other", "user.", "security.capabilit", "security.capability2", "trusted.x",
			"system.posix_acl_access", "security.selinux" } do
			assert.are.same({ nil, "EOPNOTSUPP" }, { mount:setxattr(f, name, "x") })
			assert.are.same({ nil, "ENODATA" }, { mount:getxattr(f, name) })
		end
		assert.are.equal("b'2'", host 'print(os.getxattr(p, "user.other"))')
	end)

	it("are not there at all where the mount has none", function()
		open { xattrs = "" }
		for _, call in ipairs { "getxattr", "setxattr", "removexattr" } do
			assert.are.same({ nil, "ENOSYS" }, { mount[call](mount, f, "user.a", call == "setxattr" and "x" or nil) })
		end
		assert.are.same({ nil, "ENOSYS" }, { mount:listxattr(f) })
	end)

	it("are checked before the host hears of them", function()
		local function set(size, rest) return mount:call("SETXATTR", f, ("<I4I4I4I4"):pack(size, 0, 0, 0) .. rest) end
		for _, case in ipairs { { 3, "user.a\0xx" }, { 1, "user.a\0xx" }, { 0, "user.a" }, { 3, "\0xxx" }, { 9,
			"user.a\0" } } do
			assert.are.same({ nil, "EINVAL" }, { set(case[1], case[2]) })
		end
		assert.are.same({ nil, "E2BIG" }, { set(65537, "user.a\0" .. ("x"):rep(65537)) })
		assert.are.same({ nil, "E2BIG" }, { set(0xffffffff, "user.a\0x") })
		assert.are.same({ nil, "EINVAL" }, { mount:setxattr(f, "user.a", "x", 4) })
		assert.are.same({ nil, "ERANGE" }, { mount:setxattr(f, "user." .. ("a"):rep(251), "x") })
		assert.are.same({ nil, "ERANGE" }, { mount:getxattr(f, "user." .. ("a"):rep(251)) })
		assert.are.same({ nil, "EINVAL" }, { mount:call("GETXATTR", f, ("<I4I4"):pack(0, 0) .. "user.a\0more\0") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("REMOVEXATTR", f, "user.a") })
		assert.are.same({ nil, "EINVAL" }, { mount:call("REMOVEXATTR", f, ("\0"):rep(2)) })
		assert.are.equal("", mount:listxattr(f))
		-- Sizes that nobody has memory for.
		assert.is_true(mount:setxattr(f, "user.a", "1"))
		assert.are.equal("1", mount:getxattr(f, "user.a", 0xffffffff))
		assert.are.equal("user.a\0", mount:listxattr(f, 0xffffffff))
	end)

	it("have the short form of guests before 5.14", function()
		mount:close()
		mount = assert(fuse.new { host = temporary.path, flags = 0 })
		f = assert(mount:lookup(1, "f")).node
		assert(mount:call("SETXATTR", f, ("<I4I4"):pack(3, 0) .. "user.a\0one"))
		assert.are.equal("one", mount:getxattr(f, "user.a"))
	end)

	it("are a link's own", function()
		local l = assert(mount:symlink(1, "l", "f")).node
		assert.are.same({ nil, "EPERM" }, { mount:setxattr(l, "user.a", "x") })
		assert.are.equal("", mount:listxattr(f))
	end)

	it("are flags too", function()
		local GET, SET, FSGET, FSSET = 0x80086601, 0x40086602, 0x801c581f, 0x401c5820
		local NOATIME, IMMUTABLE, APPEND = 0x80, 0x10, 0x20
		local fh = assert(mount:open(f, fuse.O.RDWR))
		local flags, why = mount:ioctl(f, fh, GET, "", 8)
		if why == "ENOTTY" or why == "EOPNOTSUPP" then return pending "this file system has no flags" end
		flags = ("<I4"):unpack(flags)
		assert.are.equal("", mount:ioctl(f, fh, SET, ("<I4"):pack(flags | NOATIME), 0))
		assert.are.equal(flags | NOATIME, (("<I4"):unpack(mount:ioctl(f, fh, GET, "", 4))))
		for _, held in ipairs { IMMUTABLE, APPEND } do
			assert.are.same({ nil, "EPERM" }, { mount:ioctl(f, fh, SET, ("<I4"):pack(flags | held), 0) })
		end
		local more, none = mount:ioctl(f, fh, FSGET, "", 28)
		if none ~= "ENOTTY" then
			local xflags, extsize, nextents, project = ("<I4I4I4I4"):unpack(more)
			assert.is_true(xflags & 0x40 ~= 0)
			local function pack(x, p) return ("<I4I4I4I4I4"):pack(x, extsize, nextents, p, 0) .. ("\0"):rep(8) end
			assert.are.equal("", mount:ioctl(f, fh, FSSET, pack(xflags & ~0x40, project), 0))
			assert.are.equal(0, (("<I4"):unpack(mount:ioctl(f, fh, FSGET, "", 28))) & 0x40)
			assert.are.same({ nil, "EPERM" }, { mount:ioctl(f, fh, FSSET, pack(xflags | 8, project), 0) })
			assert.are.same({ nil, "EPERM" }, { mount:ioctl(f, fh, FSSET, pack(xflags, project + 1), 0) })
		end
		-- Nothing else passes.
		for _, cmd in ipairs { 0, 0x5401, 0x40049409, 0xc0185879, 0x80086603, 0xffffffff } do
			assert.are.same({ nil, "ENOTTY" }, { mount:ioctl(f, fh, cmd, "", 4096) })
		end
		assert.are.same({ nil, "EINVAL" }, { mount:ioctl(f, fh, GET, "", 3) })
		assert.are.same({ nil, "EINVAL" }, { mount:ioctl(f, fh, SET, "abc", 0) })
		assert.are.same({ nil, "EBADF" }, { mount:ioctl(f, fh + 1, GET, "", 4) })
		open { readonly = true }
		local r = assert(mount:open(f))
		assert.is_truthy(mount:ioctl(f, r, GET, "", 4))
		assert.are.same({ nil, "EROFS" }, { mount:ioctl(f, r, SET, ("<I4"):pack(flags), 0) })
	end)
end)
