-- The bytes of files.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local O = fuse.O

describe("a FUSE file", function()
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

	it("is written and read at any place, straight from and to the guest's memory", function()
		local new = assert(mount:create(1, "f"))
		local data = {}
		for i = 1, 1 << 17 do data[i] = ("<I8"):pack(i * 0x9e3779b97f4a7c15) end
		data = table.concat(data)
		for _, piece in ipairs { 1 << 20, 4096, 2000 } do
			mount.piece = piece
			assert.are.equal(#data, mount:write(new.node, new.fh, 5, data))
			assert.are.equal(#data + 5, mount:getattr(new.node).size)
			assert.is_true(mount:read(new.node, new.fh, 5, #data) == data)
			assert.is_true(mount:read(new.node, new.fh, 4100, 70000) == data:sub(4096, 74095))
		end
		mount.piece = nil
		assert.are.equal(5, #mount:read(new.node, new.fh, #data, 4096)) -- the end
		assert.are.equal("", mount:read(new.node, new.fh, #data + 5, 4096))
		assert.are.equal("", mount:read(new.node, new.fh, 0, 0))
		assert.are.equal(0, mount:write(new.node, new.fh, 0, ""))
		assert.is_true(scratch.read(temporary:join "f"):sub(6) == data)
	end)

	it("is read into what there is room for, and no further", function()
		temporary:write("f", ("x"):rep(10000))
		local f = assert(mount:lookup(1, "f"))
		local fh = assert(mount:open(f.node))
		assert.are.same({ nil, "EINVAL" }, { mount:read(f.node, fh, 0, 100, { room = 115 }) })
		assert.are.equal(100, #mount:read(f.node, fh, 0, 100, { room = 116 }))
		assert.are.equal(100, #mount:read(f.node, fh, 0, 100, { room = 5000 }))
		assert.are.same({ nil, "EINVAL" }, { mount:read(f.node, fh, 0, 0xffffffff) })
		assert.are.same({ nil, "EINVAL" }, { mount:read(f.node, fh, -1, 1) })
		assert.are.same({ nil, "EINVAL" }, { mount:read(f.node, fh, 0x7fffffffffffffff, 1) })
		assert.are.equal(4, mount:stats().hostile)
	end)

	it("is open as it was opened", function()
		temporary:write("f", "12345")
		local f = assert(mount:lookup(1, "f"))
		local r, w, rw = assert(mount:open(f.node, O.RDONLY)), assert(mount:open(f.node, O.WRONLY)),
			assert(mount:open(f.node, O.RDWR))
		assert.are.same({ nil, "EBADF" }, { mount:write(f.node, r, 0, "x") })
		assert.are.same({ nil, "EBADF" }, { mount:read(f.node, w, 0, 1) })
		assert.are.equal(1, mount:write(f.node, w, 0, "x"))
		assert.are.equal("x2345", mount:read(f.node, rw, 0, 10))
		local a = assert(mount:open(f.node, O.WRONLY | O.APPEND))
		assert.are.equal(1, mount:write(f.node, a, 0, "y")) -- at the end, whatever others wrote
		assert.are.equal("x2345y", mount:read(f.node, rw, 0, 10))
		-- What the guest's pages are aligned to is not what the host wants: O_DIRECT stays in the guest.
		local d = assert(mount:open(f.node, O.RDONLY | 16384 | 65536))
		assert.are.equal("23", mount:read(f.node, d, 1, 2))
		assert(mount:open(f.node, O.RDWR | O.TRUNC))
		assert.are.equal("", mount:read(f.node, rw, 0, 10))
		local dir = assert(mount:mkdir(1, "d"))
		assert.are.same({ nil, "EISDIR" }, { mount:open(dir.node) })
		local link = assert(mount:symlink(1, "l", "f"))
		assert.are.same({ nil, "ELOOP" }, { mount:open(link.node) })
		local fifo = assert(mount:mknod(1, "p", fuse.S.FIFO | 420))
		assert.are.same({ nil, "ENXIO" }, { mount:open(fifo.node) })
		assert.are.same({ nil, "ENXIO" }, { mount:open(fifo.node, O.WRONLY) })
		assert.are.same({ nil, "ESTALE" }, { mount:open(77) })
	end)

	it("is appended to where it ends for a guest that gathers writes", function()
		temporary:write("f", "12345")
		open { writeback = true, cache = "auto" }
		local f = assert(mount:lookup(1, "f"))
		local a = assert(mount:open(f.node, O.WRONLY | O.APPEND))
		assert.are.equal(1, mount:write(f.node, a, 0, "x")) -- it says where
		assert.are.equal("x2345", mount:read(f.node, a, 0, 10)) -- and reads what it has a part of
	end)

	it("has handles of its own", function()
		temporary:write("f", "1")
		temporary:write("g", "2")
		local f, g, d = assert(mount:lookup(1, "f")), assert(mount:lookup(1, "g")), assert(mount:mkdir(1, "d"))
		local fh, dh = assert(mount:open(f.node)), assert(mount:opendir(d.node))
		local function bad(...) assert.are.same({ nil, "EBADF" }, { ... }) end
		bad(mount:read(g.node, fh, 0, 1)) -- another's
		bad(mount:read(d.node, dh, 0, 1)) -- a folder's
		bad(mount:readdir(f.node, fh, 0, 4096)) -- a file's
		bad(mount:release(d.node, dh))
		bad(mount:releasedir(f.node, fh))
		for _, forged in ipairs { 0, 1, fh + 1, fh ~ (1 << 32), -1, fh & 0xffffffff, 1 << 63 } do
			bad(mount:read(f.node, forged, 0, 1))
			bad(mount:release(f.node, forged))
		end
		assert.are.equal("1", mount:read(f.node, fh, 0, 1))
		assert.is_true(mount:release(f.node, fh))
		bad(mount:read(f.node, fh, 0, 1))
		bad(mount:release(f.node, fh))
		local again = assert(mount:open(f.node))
		assert.are_not.equal(fh, again)
		bad(mount:read(f.node, fh, 0, 1)) -- the slot is used, the handle is old
	end)

	it("says how long its data is", function()
		local new = assert(mount:create(1, "f"))
		local function write(size, data)
			return mount:call("WRITE", new.node, ("<I8I8I4I4I8I4I4"):pack(new.fh, 0, size, 0, 0, 0, 0) .. data)
		end
		for _, case in ipairs { { 4, "123" }, { 2, "123" }, { 0xffffffff, "123" }, { 0, "1" }, { 1, "" } } do
			assert.are.same({ nil, "EINVAL" }, { write(case[1], case[2]) })
		end
		assert.are.same({ nil, "EINVAL" }, { mount:write(new.node, new.fh, -1, "x") })
		assert.are.same({ nil, "EINVAL" }, { mount:write(new.node, new.fh, 0x7fffffffffffffff, "x") })
		assert.are.equal(0, mount:getattr(new.node).size)
		assert.are.equal(7, mount:stats().hostile)
	end)

	it("is flushed and written back", function()
		local new = assert(mount:create(1, "f"))
		assert.is_true(mount:flush(new.node, new.fh))
		assert.is_true(mount:fsync(new.node, new.fh))
		assert.is_true(mount:fsync(new.node, new.fh, true))
		assert.are.same({ nil, "EBADF" }, { mount:flush(new.node, new.fh + 1) })
		assert.are.same({ nil, "EBADF" }, { mount:fsync(new.node, 0) })
		local dh = assert(mount:opendir(1))
		assert.is_true(mount:fsyncdir(1, dh))
		assert.are.same({ nil, "EBADF" }, { mount:fsyncdir(1, new.fh) })
		assert.is_true(mount:syncfs())
		assert.are.same({ nil, "ESTALE" }, { mount:syncfs(55) })
	end)

	it("is given room, holes and zeros", function()
		local new = assert(mount:create(1, "f"))
		assert.are.equal(4, mount:write(new.node, new.fh, 0, "data"))
		assert.is_true(mount:fallocate(new.node, new.fh, 0, 0, 10000))
		assert.are.equal(10000, mount:getattr(new.node).size)
		assert.is_true(mount:fallocate(new.node, new.fh, 1, 10000, 10000)) -- keeps the size
		assert.are.equal(10000, mount:getattr(new.node).size)
		assert.is_true(mount:fallocate(new.node, new.fh, 3, 0, 4096)) -- a hole
		assert.are.equal("\0\0\0\0", mount:read(new.node, new.fh, 0, 4))
		for _, mode in ipairs { 8, 32, 64, 0x80000000 } do
			assert.are.same({ nil, "EOPNOTSUPP" }, { mount:fallocate(new.node, new.fh, mode, 0, 4096) })
		end
		assert.are.same({ nil, "EFBIG" }, { mount:fallocate(new.node, new.fh, 0, -1, 1) })
		assert.are.same({ nil, "EFBIG" }, { mount:fallocate(new.node, new.fh, 0, 1, 0x7fffffffffffffff) })
	end)

	it("tells where it has data", function()
		local new = assert(mount:create(1, "f"))
		assert(mount:setattr(new.node, { size = 1 << 20 }))
		assert.are.equal(4, mount:write(new.node, new.fh, 524288, "data"))
		local data = assert(mount:lseek(new.node, new.fh, 0, 3))
		assert.is_true(data > 0 and data <= 524288)
		assert.are.equal(0, mount:lseek(new.node, new.fh, 0, 4))
		assert.are.equal(1 << 20, mount:lseek(new.node, new.fh, 0, 2))
		assert.are.same({ nil, "ENXIO" }, { mount:lseek(new.node, new.fh, 1 << 21, 3) })
		for _, whence in ipairs { 0, 1, 5, 0xffffffff } do
			assert.are.same({ nil, "EINVAL" }, { mount:lseek(new.node, new.fh, 0, whence) })
		end
		assert.are.same({ nil, "EINVAL" }, { mount:lseek(new.node, new.fh, -1, 3) })
	end)

	it("is copied to another by the host alone", function()
		local f, g = assert(mount:create(1, "f")), assert(mount:create(1, "g"))
		assert.are.equal(10, mount:write(f.node, f.fh, 0, "0123456789"))
		assert.are.equal(6, mount:copy(f.node, f.fh, 2, g.node, g.fh, 1, 6))
		assert.are.equal("\000234567", mount:read(g.node, g.fh, 0, 100))
		assert.are.equal(0, mount:copy(f.node, f.fh, 100, g.node, g.fh, 1, 6))
		assert.are.same({ nil, "EBADF" }, { mount:copy(f.node, f.fh, 0, f.node, g.fh, 0, 1) })
		assert.are.same({ nil, "EBADF" }, { mount:copy(f.node, 5, 0, g.node, g.fh, 0, 1) })
		assert.are.same({ nil, "EINVAL" }, { mount:copy(f.node, f.fh, -1, g.node, g.fh, 0, 1) })
		assert.are.same({ nil, "EINVAL" }, { mount:copy(f.node, f.fh, 0, g.node, g.fh, 1, 0x7fffffffffffffff) })
		local r = assert(mount:open(g.node, O.RDONLY))
		assert.are.same({ nil, "EBADF" }, { mount:copy(f.node, f.fh, 0, g.node, r, 0, 1) })
	end)
end)
