-- The DAX window: files as memory.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local MIB <const> = 1 << 20
local GRANULE <const> = 2 * MIB
local READ, WRITE = 2, 3

describe("a FUSE mount's window", function()
	local temporary, mount, f
	local function open(options)
		if mount then mount:close() end
		options.host, options.dax, options.window_mib = temporary.path, true, 8
		mount = assert(fuse.new(options))
		f = assert(mount:lookup(1, "f")).node
	end
	local function content(i) return ("<I4"):pack(i):rep(GRANULE // 4) end
	before_each(function()
		temporary = folder.new()
		temporary:write("f", content(1) .. content(2) .. ("end"):rep(1000))
		open {}
	end)
	after_each(function()
		mount:close()
		mount = nil
		temporary:close()
	end)
	local function window(at, len) return mount.server:read(at, len) end

	it("is zeros, and has files where the guest wants them", function()
		assert.are.equal(("\0"):rep(100), window(0, 100))
		assert.is_true(mount:map(f, GRANULE, GRANULE, 0, READ))
		assert.is_true(mount:map(f, 0, 2 * GRANULE, 2 * GRANULE, WRITE))
		assert.is_true(window(0, GRANULE) == content(2))
		assert.is_true(window(2 * GRANULE, GRANULE) == content(1))
		assert.is_true(window(3 * GRANULE, GRANULE) == content(2))
		assert.are.equal(("\0"):rep(100), window(GRANULE, 100))
		assert.are.equal(6 * MIB, mount:stats().dax_bytes)
		-- What is written is the file's, whoever looks.
		assert.is_true(mount.server:write(2 * GRANULE + 5, "written"))
		assert.are.equal("written", scratch.read(temporary:join "f"):sub(6, 12))
		local fh = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal("written", mount:read(f, fh, 5, 7))
		assert.are.equal(5, mount:write(f, fh, GRANULE, "other"))
		assert.are.equal("other", window(0, 5))
		-- Mapped to read is not mapped to write.
		assert.are.same("EFAULT", select(3, mount.server:write(0, "x")))
		assert.is_true(mount:map(f, GRANULE, GRANULE, 0, WRITE))
		assert.is_true(mount.server:write(0, "x"))
		assert.is_true(mount:unmap(f, 0, GRANULE, 2 * GRANULE, 2 * GRANULE))
		assert.are.equal(("\0"):rep(100), window(0, 100))
		assert.are.equal(("\0"):rep(100), window(3 * GRANULE, 100))
		assert.are.equal(0, mount:stats().dax_bytes)
		assert.is_true(mount:unmap(f, 0, 8 * MIB)) -- nothing there: nothing to do
	end)

	it("keeps a file's node and no descriptor", function()
		assert.is_true(mount:map(f, 0, GRANULE, 0))
		local before = scratch.descriptors()
		mount:forget(f)
		assert.are.equal(1, mount:stats().nodes)
		assert.is_true(mount:unmap(1, 0, GRANULE))
		assert.are.equal(0, mount:stats().nodes)
		assert.is_true(scratch.descriptors() <= before)
	end)

	it("checks every bound", function()
		local top = 0x7fffffffffffffff & ~(GRANULE - 1)
		for name, case in pairs {
			["file offset of half a granule"] = { MIB, GRANULE, 0 },
			["window offset of half a granule"] = { 0, GRANULE, MIB },
			["window offset of a page"] = { 0, GRANULE, 4096 },
			["no length"] = { 0, 0, 0 },
			["half a granule"] = { 0, MIB, 0 },
			["a byte"] = { 0, 1, 0 },
			["past the window"] = { 0, GRANULE, 8 * MIB },
			["over its end"] = { 0, 2 * GRANULE, 6 * MIB },
			["wraps in the window"] = { 0, -GRANULE, 2 * GRANULE },
			["wraps to the window"] = { 0, GRANULE, -GRANULE },
			["larger than the window"] = { 0, 16 * MIB, 0 },
			["past the file"] = { 6 * MIB, GRANULE, 0 },
			["far past the file"] = { top, GRANULE, 0 },
			["wraps in the file"] = { -GRANULE, 2 * GRANULE, 0 },
			["other flags"] = { 0, GRANULE, 0, 4 },
		} do
			assert.are.same({ name, nil, "EINVAL" }, { name, mount:map(f, case[1], case[2], case[3], case[4]) })
		end
		assert.are.equal(15, mount:stats().hostile)
		for _, case in ipairs { { 0, 0 }, { MIB, GRANULE }, { 0, MIB }, { 8 * MIB, GRANULE }, { 6 * MIB, 2 * GRANULE },
			{ -GRANULE, GRANULE },
			{ GRANULE, -GRANULE } } do
			assert.are.same({ nil, "EINVAL" }, { mount:unmap(f, case[1], case[2]) })
		end
		for _, body in ipairs { ("<I4"):pack(0), ("<I4"):pack(1), ("<I4I8"):pack(1, 0), ("<I4I8I8I4"):pack(1, 0, GRANULE, 0),
			("<I4I8I8"):pack(0xffffffff, 0, GRANULE) } do
			assert.are.same({ nil, "EINVAL" }, { mount:call("REMOVEMAPPING", f, body) })
		end
		assert.are.equal(0, mount:stats().dax_bytes)
		assert.are.equal(("\0"):rep(100), window(0, 100))
	end)

	it("has files only", function()
		local d, p = assert(mount:mkdir(1, "d")), assert(mount:mknod(1, "p", fuse.S.FIFO | 420))
		local l = assert(mount:symlink(1, "l", "f"))
		for _, node in ipairs { d.node, p.node, l.node, 1 } do assert.are.same({ nil, "EINVAL" }, { mount:map(node, 0,
			GRANULE, 0) }) end
		assert.are.same({ nil, "ESTALE" }, { mount:map(77, 0, GRANULE, 0) })
	end)

	it("is not written through where the mount is for reading", function()
		open { readonly = true }
		assert.are.same({ nil, "EROFS" }, { mount:map(f, 0, GRANULE, 0, WRITE) })
		assert.is_true(mount:map(f, 0, GRANULE, 0, READ))
		assert.are.equal("EFAULT", select(3, mount.server:write(0, "x")))
	end)

	it("is not offered where there is none", function()
		mount:close()
		mount = assert(fuse.new { host = temporary.path })
		f = assert(mount:lookup(1, "f")).node
		assert.are.same({ nil, "ENOSYS" }, { mount:map(f, 0, GRANULE, 0) })
		assert.are.same({ nil, "ENOSYS" }, { mount:unmap(f, 0, GRANULE) })
		assert.are.equal(0, mount.server:mend())
	end)

	it("has the memory of requests too", function()
		assert.is_true(mount:map(f, 0, GRANULE, 0, WRITE))
		assert.is_true(mount:map(f, GRANULE, GRANULE, GRANULE, WRITE))
		local fh = assert(mount:open(f, fuse.O.RDWR))
		-- Read one part of the file into another.
		local request = fuse.request("READ", f, ("<I8I8I4I4I8I4I4"):pack(fh, GRANULE, 400, 0, 0, 0, 0))
		assert.is_true(mount.server:write(100, request))
		assert.are.equal(416, mount.server:serve_window(100, #request, 4096, 8000))
		assert.is_true(window(4096 + 16, 400) == content(2):sub(1, 400))
		-- Write from one part to another.
		local write = fuse.request("WRITE", f, ("<I8I8I4I4I8I4I4"):pack(fh, 4 * MIB, 3, 0, 0, 0, 0) .. "new")
		assert.is_true(mount.server:write(200, write))
		assert.are.equal(24, mount.server:serve_window(200, #write, 300, 24))
		assert.are.equal("new", mount:read(f, fh, 4 * MIB, 3))
		-- Where the file is no more there is no memory: not for the request, nor its data, nor its reply.
		scratch.run("truncate -s 4096 " .. temporary:join "f")
		assert.are.equal("EPROTO", select(3, mount.server:serve_window(MIB, 100, 0, 4096)))
		assert.is_true(mount.server:write(0, request))
		assert.are.equal(0, mount.server:serve_window(0, #request, MIB, 4096))
		local long = fuse.request("WRITE", f, ("<I8I8I4I4I8I4I4"):pack(fh, 0, 8000, 0, 0, 0, 0) .. ("y"):rep(8000))
		assert.is_true(mount.server:write(0, long:sub(1, 4096)))
		local got = mount.server:serve_window(0, #long, 2 * GRANULE, 4096)
		local len, code = ("<I4i4"):unpack(window(2 * GRANULE, 8))
		assert.are.equal(got, len)
		assert.is_true(code == -14 or code == 0, code) -- EFAULT, or as far as it went
	end)

	it("is mended where a file became shorter", function()
		temporary:write("g", content(3))
		local g = assert(mount:lookup(1, "g")).node
		assert.is_true(mount:map(f, 0, 2 * GRANULE, 0, WRITE))
		assert.is_true(mount:map(g, 0, GRANULE, 3 * GRANULE, WRITE))
		assert.are.equal(0, mount.server:mend()) -- nothing is wrong
		scratch.run("truncate -s 10000 " .. temporary:join "f")
		assert.are.equal("EFAULT", select(3, window(GRANULE, 1)))
		assert.are.equal("EFAULT", select(3, window(12288, 1)))
		assert.are.equal(2, mount.server:mend())
		assert.are.equal(2, mount:stats().mended)
		assert.are.equal(("\0"):rep(GRANULE), window(GRANULE, GRANULE))
		assert.are.equal(("\0"):rep(4096), window(12288, 4096))
		assert.is_true(window(0, 10000) == content(1):sub(1, 10000)) -- what is left of it is still the file
		assert.is_true(mount.server:write(0, "file"))
		assert.are.equal("file", scratch.read(temporary:join "f"):sub(1, 4))
		assert.is_true(mount.server:write(GRANULE, "memory"))
		assert.is_true(window(3 * GRANULE, GRANULE) == content(3)) -- others are as they were
		assert.are.equal(0, mount.server:mend())
		-- Mapped again it is the file again.
		temporary:write("f", content(4) .. content(5))
		assert.is_true(mount:map(f, GRANULE, GRANULE, GRANULE, READ))
		assert.is_true(window(GRANULE, GRANULE) == content(5))
	end)

	it("leaves the end of a file that may grow to it", function()
		temporary:write("g", content(3))
		local g = assert(mount:lookup(1, "g")).node
		assert.is_true(mount:map(f, 2 * GRANULE, GRANULE, 0, WRITE)) -- 3,000 bytes of it are there
		assert.is_true(mount:map(g, 0, GRANULE, GRANULE, WRITE))
		scratch.run("truncate -s 0 " .. temporary:join "g")
		assert.are.equal(1, mount.server:mend())
		local fh = assert(mount:open(f, fuse.O.RDWR))
		assert.are.equal(3, mount:write(f, fh, 5 * MIB, "new"))
		assert.are.equal("new", window(MIB, 3))
		-- It has grown, and shrinks: what it was between is not known, and it is mended all the same.
		scratch.run("truncate -s " .. 4 * MIB + 3000 .. " " .. temporary:join "f")
		assert.are.equal("EFAULT", select(3, window(MIB, 3)))
		assert.are.equal(1, mount.server:mend())
		assert.are.equal("\0\0\0", window(MIB, 3))
	end)

	it("is memory again after a reset", function()
		assert.is_true(mount:map(f, 0, GRANULE, 0, WRITE))
		assert.is_true(mount.server:write(GRANULE, "the guest's own"))
		mount.server:reset()
		assert.are.equal(("\0"):rep(100), window(0, 100))
		assert.are.equal(("\0"):rep(100), window(GRANULE, 100))
		assert.is_true(mount.server:write(0, "not the file's"))
		assert.is_true(scratch.read(temporary:join "f"):sub(1, GRANULE) == content(1))
		assert.are.equal(0, mount:stats().dax_bytes)
	end)
end)
