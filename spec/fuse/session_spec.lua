-- How a session begins and ends, and what every request has in common.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

describe("a FUSE session", function()
	local temporary, mount
	before_each(function() temporary = folder.new() end)
	after_each(function()
		if mount then mount:close() end
		mount = nil
		temporary:close()
	end)
	local function open(options)
		options.host = temporary.path
		mount = assert(fuse.new(options))
		return mount
	end

	it("begins with INIT, and with nothing else", function()
		open { init = false }
		assert.are.same({ nil, "EPROTO" }, { mount:lookup(1, "x") })
		assert.are.equal(1, mount:stats().hostile)
		local agreed = assert(mount:init())
		assert.are.equal(7, agreed.major)
		assert.are.equal(39, agreed.minor)
		assert.are.equal(1 << 20, agreed.max_write)
		assert.are.equal(256, agreed.max_pages)
		assert.are.equal(1 << 20, agreed.max_readahead)
		assert.are.equal(0, agreed.map_alignment)
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "x") })
	end)

	it("agrees on what both can do, and on no more", function()
		open { init = false }
		local flag = fuse.flag
		local full = assert(mount:init()).flags
		for _, name in ipairs { "ATOMIC_O_TRUNC", "AUTO_INVAL_DATA", "READDIRPLUS", "MAX_PAGES", "SUBMOUNTS",
			"KILLPRIV_V2" } do
			assert.is_true(full & flag[name] ~= 0, name)
		end
		for _, name in ipairs { "POSIX_LOCKS", "FLOCK_LOCKS", "WRITEBACK", "KILLPRIV", "POSIX_ACL", "CACHE_SYMLINKS",
			"MAP_ALIGNMENT", "INODE_DAX" } do
			assert.are.equal(0, full & flag[name], name)
		end
		local little = assert(mount:init(flag.READDIRPLUS))
		assert.are.equal(flag.READDIRPLUS, little.flags)
		assert.are.equal(0, little.max_pages)
		assert.are.equal(128 << 10, little.max_write)
		-- The upper half counts only for who knows of it.
		mount:close()
		open { dax = true, window_mib = 2, init = false }
		assert.are.equal(0, assert(mount:init(flag.INODE_DAX | flag.MAP_ALIGNMENT)).flags & flag.INODE_DAX)
		local dax = assert(mount:init())
		assert.is_true(dax.flags & flag.INODE_DAX ~= 0)
		assert.are.equal(21, dax.map_alignment)
	end)

	it("offers what the mount has", function()
		local flag = fuse.flag
		open { writeback = true, cache = "always", host_locks = true }
		local wanted = flag.WRITEBACK | flag.CACHE_SYMLINKS | flag.POSIX_LOCKS | flag.FLOCK_LOCKS
		assert.are.equal(wanted, mount.agreed.flags & wanted)
	end)

	it("speaks 7.31 and later", function()
		open { init = false }
		assert.are.same({ nil, "EPROTO" }, { mount:init(nil, 30) })
		assert.are.same({ nil, "EPROTO" }, { mount:init(nil, 31, 6) })
		local newer = assert(mount:init(nil, 0, 8))
		assert.are.equal(7, newer.major)
		assert.are.same({ nil, "EPROTO" }, { mount:lookup(1, "x") })
		assert.are.equal(31, assert(mount:init(nil, 31)).minor)
		assert.are.equal(39, assert(mount:init(nil, 99)).minor)
		-- The short one of before 7.36.
		local body = assert(mount:call("INIT", 0, ("<I4I4I4I4"):pack(7, 31, 0, 0)))
		assert.are.equal(64, #body)
	end)

	it("ends with DESTROY, with another INIT, and with a reset", function()
		temporary:write("a", "1")
		open {}
		for _, ending in ipairs {
			function() assert(mount:call("DESTROY", 0)) end,
			function() end,
			function() mount.server:reset() end,
		} do
			local a = assert(mount:lookup(1, "a"))
			local fh = assert(mount:open(a.node))
			assert.are.equal(1, mount:stats().nodes)
			assert.are.equal(1, mount:stats().handles)
			ending()
			assert(mount:init())
			assert.are.same({ nil, "ESTALE" }, { mount:getattr(a.node) })
			assert.are.same({ nil, "EBADF" }, { mount:read(a.node, fh, 0, 1) })
			local stats = mount:stats()
			assert.are.same({ 0, 0, 1 }, { stats.nodes, stats.handles, stats.descriptors })
		end
	end)

	it("knows what it does not know", function()
		open {}
		for _, op in ipairs { 0, 7, 19, 37, 40, 41, 53, 4096, 0x7fffffff, 0xffffffff } do
			assert.are.same({ nil, "ENOSYS" }, { mount:call(op, 1, "") })
		end
	end)

	it("refuses what has no length of its own", function()
		open {}
		local server = mount.server
		assert.are.equal("EPROTO", select(3, server:serve("")))
		assert.are.equal("EPROTO", select(3, server:serve(("\0"):rep(39))))
		for _, len in ipairs { 0, 39, 41, 43, 0xffffffff } do
			assert.are.same({ nil, "EINVAL" }, { mount:call("LOOKUP", 1, "a\0", { len = len }) })
		end
		assert.are.equal(7, mount:stats().hostile)
	end)

	it("checks the length of every operation", function()
		open {}
		-- One byte less than the least; one more than the most, where there is one.
		local lengths = {
			GETATTR = { 16, 16 }, SETATTR = { 88, 88 }, STATX = { 24, 24 }, ACCESS = { 8, 8 }, READLINK = { 0, 0 },
				STATFS = { 0, 0 },
			OPEN = { 8, 8 }, OPENDIR = { 8, 8 }, RELEASE = { 24, 24 }, RELEASEDIR = { 24, 24 }, FLUSH = { 24, 24 },
				FSYNC = { 16, 16 },
			FSYNCDIR = { 16, 16 }, SYNCFS = { 8, 8 }, READ = { 40, 40 }, READDIR = { 40, 40 }, READDIRPLUS = { 40, 40 },
				WRITE = { 40 },
			FALLOCATE = { 32, 32 }, LSEEK = { 24, 24 }, COPY_FILE_RANGE = { 56, 56 }, GETLK = { 48, 48 }, SETLK = { 48, 48 },
			SETLKW = { 48, 48 }, SETUPMAPPING = { 40, 40 }, REMOVEMAPPING = { 4 }, IOCTL = { 32 }, GETXATTR = { 10 },
				LISTXATTR = { 8, 8 },
			REMOVEXATTR = { 2 }, SETXATTR = { 18 }, MKNOD = { 18 }, MKDIR = { 10 }, SYMLINK = { 3 }, LINK = { 10 },
				CREATE = { 18 },
			UNLINK = { 2 }, RMDIR = { 2 }, RENAME = { 12 }, RENAME2 = { 20 }, LOOKUP = { 2 }, TMPFILE = { 16 }, DESTROY = { 0,
				0 },
			INIT = { 16, 64 },
		}
		for op, range in pairs(lengths) do
			local before = mount:stats().hostile
			if range[1] > 0 then
				assert.are.same({ op, nil, "EINVAL" }, { op, mount:call(op, 1, ("\0"):rep(range[1] - 1)) })
			end
			if range[2] then
				assert.are.same({ op, nil, "EINVAL" }, { op, mount:call(op, 1, ("\0"):rep(range[2] + 1)) })
			end
			assert.is_true(mount:stats().hostile > before, op)
		end
	end)

	it("begins nothing whose reply has no room", function()
		open {}
		assert.are.same({ nil, "no reply" }, { mount:mkdir(1, "d", 493, { room = 15 }) })
		assert.are.same({ nil, "EINVAL" }, { mount:mkdir(1, "d", 493, { room = 16 + 127 }) })
		assert.are.same({ nil, "EINVAL" }, { mount:create(1, "f", 2, 420, { room = 16 + 143 }) })
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "d") })
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(1, "f") })
		assert(mount:mkdir(1, "d", 493, { room = 16 + 128 }))
	end)

	it("takes requests in pieces of any size", function()
		temporary:write("a/b", "hello")
		for _, plain in ipairs { false, true } do
			open { plain = plain }
			for _, piece in ipairs { 1, 3, 16, 40, 1000 } do
				mount.piece = piece
				local a = assert(mount:lookup(1, "a"))
				assert.are.equal("hello", mount:content(a.node, "b"))
				local new = assert(mount:create(a.node, "new", fuse.O.RDWR, 420))
				assert.are.equal(5, mount:write(new.node, new.fh, 3, "world"))
				assert.are.equal("\0\0\0world", mount:read(new.node, new.fh, 0, 100))
				assert.is_true(mount:release(new.node, new.fh))
				assert.is_true(mount:list(a.node, true).new ~= nil)
				assert.is_true(mount:unlink(a.node, "new"))
			end
			mount:close()
		end
	end)

	it("says what is wrong with a mount", function()
		local file = temporary:write("file", "")
		local function refused(options, code, text)
			options.host = options.host or temporary.path
			local nothing, message, name = fuse.new(options)
			assert.is_nil(nothing)
			assert.are.equal(code, name)
			assert.is_truthy(message:find(text, 1, true), message)
		end
		refused({ host = file }, "ENOTDIR", "root: not a folder")
		refused({ only = "nothing" }, "ENOENT", "mount: nothing: ")
		refused({ only = "a/b" }, "EINVAL", '"a/b" is not a file\'s name')
		refused({ only = "" }, "EINVAL", "is not a file's name")
		refused({ only = ".." }, "EINVAL", "not a regular file")
		refused({ writeback = true }, "EINVAL", "writeback needs a cache")
		refused({ owners = "map" }, "EINVAL", "owners: 1 to 8 ranges, not 0")
		refused({ owners = "map", ranges = { { 0, 0xffffffff, 2 } } }, "EINVAL", "owners: range 1 is past the last ID")
		if not scratch.is_root() then refused({ owners = "passthrough" }, "EPERM", "only root can give files to others") end
		for _, list in ipairs { ",", "user.*,", ",user.*", ("a"):rep(256), ("a,"):rep(32) .. "a" } do
			refused({ xattrs = list }, "EINVAL", "xattrs: not a list")
		end
	end)
end)
