-- What files are: sizes, modes, times, owners.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local S, O = fuse.S, fuse.O
local root = scratch.is_root()

describe("a FUSE node", function()
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

	it("is what the host says it is", function()
		temporary:write("f", ("x"):rep(5000))
		scratch.run("touch -d '2001-02-03 04:05:06.789 UTC' " .. temporary:join "f")
		local f = assert(mount:lookup(1, "f"))
		local attr = assert(mount:getattr(f.node))
		assert.are.same(f.attr.ino, attr.ino)
		assert.are.equal(stat("f", "%i %s %b %X %Y %Z %h"), ("%d %d %d %d %d %d %d"):format(attr.ino, attr.size,
			attr.blocks, attr.atime,
			attr.mtime, attr.ctime, attr.nlink))
		assert.are.equal(789000000, attr.mtimensec)
		local fh = assert(mount:open(f.node))
		attr.valid = nil
		local by_handle = assert(mount:getattr(f.node, fh))
		by_handle.valid = nil
		assert.are.same(attr, by_handle)
		assert.are.same({ nil, "EBADF" }, { mount:getattr(1, fh) })
		local statx = assert(mount:statx(f.node))
		assert.are.same({ attr.ino, 5000, attr.mode, 1 }, { statx.ino, statx.size, statx.mode, statx.nlink })
		assert.are.equal(0x7ff, statx.mask & 0x7ff)
		if statx.mask & 0x800 ~= 0 then assert.are.equal(stat("f", "%W"), tostring(statx.btime)) end
	end)

	it("changes size, by name and by handle", function()
		local f = assert(mount:create(1, "f"))
		assert.are.equal(1000, mount:setattr(f.node, { size = 1000 }).size)
		assert.are.equal(10, mount:setattr(f.node, { size = 10, fh = f.fh }).size)
		assert.are.equal("10", stat("f", "%s"))
		assert.are.same({ nil, "EFBIG" }, { mount:setattr(f.node, { size = -1 }) })
		local r = assert(mount:open(f.node, O.RDONLY))
		assert.are.same({ nil, "EINVAL" }, { mount:setattr(f.node, { size = 1, fh = r }) })
		local d = assert(mount:mkdir(1, "d"))
		assert.are.same({ nil, "EISDIR" }, { mount:setattr(d.node, { size = 1 }) })
		local p = assert(mount:mknod(1, "p", S.FIFO | 420))
		assert.are.same({ nil, "EINVAL" }, { mount:setattr(p.node, { size = 1 }) })
		temporary:write("target", "secret")
		local l = assert(mount:symlink(1, "l", "target"))
		assert.are.same({ nil, "EINVAL" }, { mount:setattr(l.node, { size = 1 }) })
		assert.are.equal("6", stat("target", "%s"))
	end)

	it("changes mode and times; a link itself, not where it leads", function()
		local f = assert(mount:create(1, "f"))
		assert.are.equal(S.REG | 2541, mount:setattr(f.node, { mode = 2541 }).mode)
		assert.are.equal("4755", stat("f", "%a"))
		local set = assert(mount:setattr(f.node, { atime = 5, atimensec = 7, mtime = 1 << 33, mtimensec = 999999999 }))
		assert.are.same({ 5, 7, 1 << 33, 999999999 }, { set.atime, set.atimensec, set.mtime, set.mtimensec })
		set = assert(mount:setattr(f.node, { atime = "now" }))
		assert.is_true(set.atime > 1000000000)
		assert.are.equal(1 << 33, set.mtime)
		assert.are.equal(5, assert(mount:setattr(f.node, { atime = 5, fh = f.fh })).atime)
		temporary:write("target", "")
		local before = stat("target", "%Y %a")
		local l = assert(mount:symlink(1, "l", "target"))
		assert.are.equal(77, assert(mount:setattr(l.node, { mtime = 77 })).mtime)
		assert.are.same({ nil, "EOPNOTSUPP" }, { mount:setattr(l.node, { mode = 511 }) })
		assert.are.equal(before, stat("target", "%Y %a"))
		local p = assert(mount:mknod(1, "p", S.FIFO | 420))
		assert.are.equal(384, mount:setattr(p.node, { mode = 384 }).mode & 511)
	end)

	it("may be asked what it lets do", function()
		local f = assert(mount:create(1, "f"))
		assert.is_true(mount:access(f.node, 4))
		assert.is_true(mount:access(f.node, 6))
		assert.are.same({ nil, "EACCES" }, { mount:access(f.node, 1) })
		assert.are.same({ nil, "ESTALE" }, { mount:access(99, 4) })
		assert.is_true(mount:access(assert(mount:symlink(1, "l", "/nowhere")).node, 4))
	end)

	it("lies on a file system", function()
		local st = assert(mount:statfs())
		local blocks, files, size = scratch.run("stat -f -c '%b %c %S' " .. temporary.path):match "(%d+) (%d+) (%d+)"
		assert.are.same({ tonumber(blocks), tonumber(files), tonumber(size), 255 }, { st.blocks, st.files, st.frsize,
			st.namelen })
	end)

	it("is the guest's root's where it is ours, and nobody's else", function()
		local f = assert(mount:create(1, "f", O.RDWR, 420, { uid = 1000, gid = 1000 }))
		assert.are.same({ 0, 0 }, { f.attr.uid, f.attr.gid })
		assert.are.equal(scratch.run "id -u", stat("f", "%u"))
		assert.are.equal(0, assert(mount:setattr(f.node, { uid = 0, gid = 0 })).uid)
		assert.are.same({ nil, "EPERM" }, { mount:setattr(f.node, { uid = 1000 }) })
		assert.are.same({ nil, "EPERM" }, { mount:setattr(f.node, { gid = 1000 }) })
		if not root then return end
		scratch.run("chown 1234:1235 " .. temporary:join "f")
		local attr = assert(mount:getattr(f.node))
		assert.are.same({ 65534, 65534 }, { attr.uid, attr.gid })
		assert.is_truthy(mount:setattr(f.node, { uid = 65534 })) -- as it is: nothing
		assert.are.equal("1234 1235", stat("f", "%u %g"))
	end)

	if not root then return end

	it("is whose it is, where the mount passes owners through", function()
		open { owners = "passthrough" }
		local head = { uid = 1000, gid = 1001 }
		local f = assert(mount:create(1, "f", O.RDWR, 2541, head))
		assert.are.same({ 1000, 1001, S.REG | 2541 }, { f.attr.uid, f.attr.gid, f.attr.mode })
		assert(mount:mkdir(1, "d", 448, head))
		assert(mount:mknod(1, "p", S.FIFO | 420, 0, head))
		assert(mount:symlink(1, "l", "x", head))
		for _, name in ipairs { "f", "d", "p", "l" } do assert.are.equal("1000 1001", stat(name, "%u %g")) end
		assert(mount:tmpfile(1, O.RDWR, 384, head))
		assert(mount:setattr(f.node, { uid = 5 }))
		assert.are.equal("5 1001", stat("f", "%u %g"))
		assert.are.same({ nil, "EINVAL" }, { mount:setattr(f.node, { uid = 0xffffffff }) })
		-- Devices too.
		assert(mount:mknod(1, "null", S.CHR | 438, 0x103))
		assert.are.equal("character special file 1 3", stat("null", "%F %t %T"))
		local null = assert(mount:lookup(1, "null"))
		assert.are.equal(0x103, null.attr.rdev)
		assert.are.same({ nil, "ENXIO" }, { mount:open(null.node, O.RDWR) })
	end)

	it("takes its group from a folder that says so", function()
		open { owners = "passthrough" }
		local d = assert(mount:mkdir(1, "d", 1517)) -- 02755
		assert(mount:setattr(d.node, { gid = 77, mode = 1517 }))
		local f = assert(mount:create(d.node, "f", O.RDWR, 420, { uid = 1000, gid = 1001 }))
		assert.are.same({ 1000, 77 }, { f.attr.uid, f.attr.gid })
		local e = assert(mount:mkdir(d.node, "e", 493, { uid = 1000, gid = 1001 }))
		assert.are.same({ 77, S.DIR | 1517 }, { e.attr.gid, e.attr.mode })
	end)

	it("is shifted by ranges", function()
		open { owners = "map", ranges = { { 0, 100000, 1000 }, { 1000, 1000, 1 } } }
		local f = assert(mount:create(1, "f", O.RDWR, 420, { uid = 0, gid = 1000 }))
		assert.are.same({ 0, 1000 }, { f.attr.uid, f.attr.gid })
		assert.are.equal("100000 1000", stat("f", "%u %g"))
		assert(mount:setattr(f.node, { uid = 999 }))
		assert.are.equal("100999 1000", stat("f", "%u %g"))
		assert.are.same({ nil, "EOVERFLOW" }, { mount:setattr(f.node, { uid = 1001 }) })
		-- One that nobody is here makes nothing.
		assert.are.same({ nil, "EOVERFLOW" }, { mount:create(1, "g", O.RDWR, 420, { uid = 1001 }) })
		assert.are.same({ nil, "EOVERFLOW" }, { mount:mkdir(1, "d", 493, { gid = 5000 }) })
		assert.are.same({ nil, "EOVERFLOW" }, { mount:symlink(1, "l", "x", { gid = 5000 }) })
		assert.are.equal("f", scratch.run("ls -A " .. temporary.path))
		scratch.run("chown 1:99999 " .. temporary:join "f")
		local attr = assert(mount:getattr(f.node))
		assert.are.same({ 65534, 65534 }, { attr.uid, attr.gid })
	end)

	it("loses set-user-ID when somebody writes to it", function()
		open { owners = "passthrough" }
		local kills = {
			write = function(f) return mount:write(f.node, f.fh, 0, "x", 4) end,
			truncate = function(f) return mount:setattr(f.node, { size = 0, kill = 1 }) end,
			["open and cut"] = function(f) return mount:open(f.node, O.RDWR | O.TRUNC, 1) end,
			fallocate = function(f) return mount:fallocate(f.node, f.fh, 0, 0, 10) end,
			chown = function(f) return mount:setattr(f.node, { uid = 7 }) end,
		}
		for name, kill in pairs(kills) do
			local f = assert(mount:create(1, name, O.RDWR, 420))
			for _, case in ipairs { { 3565, 493 }, { 1517, 493 }, { 1445, 1445 }, { 2468,
				420 } } do -- 06755, 02755, 02645, 04644
				assert(mount:setattr(f.node, { mode = case[1], uid = 0 }))
				assert(mount:setattr(f.node, { mode = case[1] }))
				assert(kill(f))
				assert.are.same({ name, case[2] }, { name, mount:getattr(f.node).mode & 4095 })
			end
		end
		-- And keeps it when it may.
		local f = assert(mount:lookup(1, "write"))
		local fh = assert(mount:open(f.node, O.RDWR))
		assert(mount:setattr(f.node, { mode = 3565 }))
		assert(mount:write(f.node, fh, 0, "x"))
		assert(mount:setattr(f.node, { size = 0 }))
		assert.are.equal(3565, mount:getattr(f.node).mode & 4095)
	end)
end)
