-- A session that is saved and loaded.
local core = require "supermachine.core"
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local GRANULE <const> = 2 << 20

describe("a FUSE session's state", function()
	local temporary, mount
	local function open(options)
		options = options or {}
		options.host, options.init = options.host or temporary:join "root", false
		return assert(fuse.new(options))
	end
	-- The session goes on in another server.
	local function move(options)
		local saved = assert(mount.server:save())
		mount:close()
		mount = open(options)
		assert(mount.server:load(saved))
		assert.are.equal(saved, mount.server:save())
		return saved
	end
	before_each(function()
		temporary = folder.new()
		temporary:write("root/a/b/file", "content")
		temporary:write("root/other", "other")
		mount = open()
		assert(mount:init())
	end)
	after_each(function()
		if mount then mount:close() end
		mount = nil
		temporary:close()
	end)
	local function walk(...)
		local node = 1
		for _, name in ipairs { ... } do node = assert(mount:lookup(node, name)).node end
		return node
	end

	it("is the same before INIT, and with nothing in it", function()
		mount.server:reset()
		move()
		assert.are.same({ nil, "EPROTO" }, { mount:getattr(1) })
		assert(mount:init())
		move()
		assert.is_truthy(mount:getattr(1))
	end)

	it("has nodes, handles, and what INIT agreed on", function()
		local file = walk("a", "b", "file")
		local fh = assert(mount:open(file, fuse.O.RDWR))
		local r = assert(mount:open(file, fuse.O.RDONLY))
		local dh = assert(mount:opendir(walk("a", "b")))
		local descriptors = scratch.descriptors()
		move()
		assert.are.same({ 3, 3, 1 + 3 }, { mount:stats().nodes, mount:stats().handles, mount:stats().descriptors })
		assert.is_true(scratch.descriptors() < descriptors) -- nothing was opened
		assert.are.equal("content", mount:read(file, fh, 0, 100))
		assert.are.equal(3, mount:write(file, fh, 0, "new"))
		assert.are.same({ nil, "EBADF" }, { mount:write(file, r, 0, "x") })
		assert.are.equal("newtent", mount:read(file, r, 0, 100))
		assert.are.equal(3, #assert(mount:readdir(walk("a", "b"), dh, 0, 4096)))
		assert.are.equal(file, walk("a", "b", "file"))
		move()
		move()
		assert.are.equal("newtent", mount:read(file, fh, 0, 100))
		assert.is_true(mount:release(file, fh))
		assert.are.same({ nil, "EBADF" }, { mount:read(file, fh, 0, 100) })
		-- New ones are none of the old.
		local new = assert(mount:create(1, "new"))
		assert.is_true(new.node > file)
		assert.are_not.equal(new.fh, r)
		assert.are.equal("newtent", mount:read(file, r, 0, 100))
	end)

	it("does not cut a file again", function()
		local new = assert(mount:create(1, "new", fuse.O.RDWR | fuse.O.TRUNC | fuse.O.EXCL))
		assert.are.equal(4, mount:write(new.node, new.fh, 0, "data"))
		move()
		assert.are.equal("data", mount:read(new.node, new.fh, 0, 100))
		local a = assert(mount:open(new.node, fuse.O.WRONLY | fuse.O.APPEND))
		move()
		assert.are.equal(1, mount:write(new.node, a, 0, "!"))
		assert.are.equal("data!", mount:read(new.node, new.fh, 0, 100))
	end)

	it("goes on in the middle of a folder", function()
		scratch.run(("cd %s && mkdir d && cd d && seq -f 'f%%g' 500 | xargs touch"):format(temporary:join "root"))
		local d = walk "d"
		local fh = assert(mount:opendir(d))
		local seen, offset = {}, 0
		while true do
			local list = assert(mount:readdir(d, fh, offset, 1000))
			if #list == 0 then break end
			for _, one in ipairs(list) do
				assert.is_nil(seen[one.name])
				seen[one.name] = true
			end
			offset = list[#list].off
			move()
			scratch.write(temporary:join("root/d/new" .. offset % 1000), "")
		end
		for i = 1, 500 do assert.is_true(seen["f" .. i], i) end
	end)

	it("is stale where a file went or was replaced, and there alone", function()
		local file, other = walk("a", "b", "file"), walk "other"
		local fh, oh = assert(mount:open(file)), assert(mount:open(other))
		local saved = mount.server:save()
		for what, change in pairs {
			gone = "rm -r a", replaced = "printf 2 > a/b/new && mv a/b/new a/b/file", moved = "mv a elsewhere",
			["a folder in its place"] = "rm a/b/file && mkdir a/b/file", ["a link in its place"] = "mv a real && ln -s real a",
		} do
			local root = temporary:join("root-" .. what:gsub(" ", "-"))
			scratch.run(("cp -al %s %s && cd %s && %s"):format(temporary:join "root", root, root, change))
			mount:close()
			mount = open { host = root }
			assert(mount.server:load(saved))
			assert.are.same({ what, nil, "ESTALE" }, { what, mount:read(file, fh, 0, 100) })
			assert.are.same({ what, nil, "ESTALE" }, { what, mount:getattr(file) })
			assert.are.equal("other", mount:read(other, oh, 0, 100))
			assert.are.equal(2, mount:stats().stale)
			assert.is_true(mount:release(file, fh))
			mount:forget(file)
			assert.are.equal(0, mount:stats().hostile)
		end
	end)

	it("does not have files without a name", function()
		local new = assert(mount:create(1, "new"))
		assert.are.equal(4, mount:write(new.node, new.fh, 0, "data"))
		assert.is_true(mount:unlink(1, "new"))
		local tmp = assert(mount:tmpfile(1))
		move()
		assert.are.same({ nil, "ESTALE" }, { mount:read(new.node, new.fh, 0, 100) })
		assert.are.same({ nil, "ESTALE" }, { mount:getattr(tmp.node) })
		assert.is_true(mount:release(new.node, new.fh))
		mount:forget(new.node)
		assert.is_true(mount:release(tmp.node, tmp.fh))
		mount:forget(tmp.node)
		assert.are.equal(0, mount:stats().nodes)
	end)

	it("has DAX mappings, at once", function()
		mount:close()
		local dax = { dax = true, window_mib = 8 }
		mount = open(dax)
		assert(mount:init())
		temporary:write("root/big", ("A"):rep(GRANULE) .. ("B"):rep(GRANULE))
		temporary:write("root/gone", ("C"):rep(GRANULE))
		local big, gone = walk "big", walk "gone"
		assert.is_true(mount:map(big, GRANULE, GRANULE, 0, 3))
		assert.is_true(mount:map(big, 0, GRANULE, 2 * GRANULE, 2))
		assert.is_true(mount:map(gone, 0, GRANULE, GRANULE, 2))
		os.remove(temporary:join "root/gone")
		move(dax)
		assert.are.equal("BBBB", mount.server:read(0, 4))
		assert.are.equal("AAAA", mount.server:read(2 * GRANULE, 4))
		assert.are.equal("\0\0\0\0", mount.server:read(GRANULE, 4))
		assert.are.equal(1, mount:stats().stale)
		assert.is_true(mount.server:write(5, "new"))
		assert.are.equal("new", scratch.read(temporary:join "root/big"):sub(GRANULE + 6, GRANULE + 8))
		assert.are.equal("EFAULT", select(3, mount.server:write(2 * GRANULE, "x")))
		move(dax)
		assert.is_true(mount:unmap(1, 0, 6 << 20))
		-- A window that is not that long, or none.
		assert.is_true(mount:map(big, 0, GRANULE, 3 * GRANULE, 2))
		local saved = mount.server:save()
		for _, other in ipairs { { dax = true, window_mib = 6 }, { window_mib = 8 }, {} } do
			mount:close()
			mount = open(other)
			assert.are.equal("EBADMSG", select(3, mount.server:load(saved)))
			assert.are.equal(0, mount:stats().nodes)
		end
	end)

	it("needs a mount that does what the guest relies on", function()
		mount:close()
		mount = open { host_locks = true, cache = "always", writeback = true }
		assert(mount:init())
		local saved = mount.server:save()
		mount:close()
		mount = open()
		assert.are.same({ nil, "mount's session: the guest relies on what this mount does not do", "EBADMSG" },
			{ mount.server:load(saved) })
		mount:close()
		mount = open()
		assert(mount:init())
		local file = walk("a", "b", "file")
		assert(mount:open(file, fuse.O.RDWR))
		saved = mount.server:save()
		mount:close()
		mount = open { readonly = true }
		assert.are.equal("EBADMSG", select(3, mount.server:load(saved)))
	end)

	it("is not loaded over another", function()
		local saved = mount.server:save()
		assert.are.same({ nil, "mount's session: the server has one", "EINVAL" }, { mount.server:load(saved) })
		mount.server:reset()
		assert.is_true(mount.server:load(saved))
	end)

	it("is refused where a bit is wrong", function()
		assert(mount:open(walk("a", "b", "file")))
		local saved = mount.server:save()
		mount:close()
		mount = open()
		for at = 1, #saved do
			local broken = saved:sub(1, at - 1) .. string.char(saved:byte(at) ~ 1 << (at % 8)) .. saved:sub(at + 1)
			assert.are.equal("EBADMSG", select(3, mount.server:load(broken)))
			assert.are.equal("EBADMSG", select(3, mount.server:load(saved:sub(1, at - 1))))
		end
		assert.are.same({ 0, 0 }, { mount:stats().nodes, mount:stats().handles })
		assert.are.equal("EBADMSG", select(3, mount.server:load(saved .. "\0")))
		mount.server:reset()
		assert.is_true(mount.server:load(saved))
	end)

	it("is refused where what it says cannot be", function()
		mount:close()
		mount = open { host_locks = true, dax = true, window_mib = 4 }
		local root = ("<I1I4I8"):pack(1, 39, 0)
		local function node(id, parent, name, more)
			more = more or {}
			return ("<I8I8I8I8I1I8I8I2s4"):pack(id, parent, more.via or 0, more.lookups or 1, more.flags or 1, more.ino or id, 0,
				more.type or fuse.S.DIR, name)
		end
		local function handle(id, of, flags, is_folder, lock) return ("<I8I8I4I1I1"):pack(id, of, flags or 0,
			is_folder or 0, lock or 2) end
		local function list(...) return ("<I4"):pack(select("#", ...)) .. table.concat { ... } end
		local function state(nodes, handles, mappings, locks, next)
			return root .. ("<I8"):pack(next or 100) .. (nodes or list()) .. (handles or list()) .. (mappings or list()) ..
				(locks or list())
		end
		local REG = { type = fuse.S.REG }
		local file = node(3, 2, "f", REG)
		local both = list(node(2, 1, "d"), file)
		local function load(payload)
			mount.server:reset()
			return mount.server:load(core.record_write("FUSE", 1, payload))
		end
		for what, fine in pairs {
			empty = state(), nodes = state(both), handles = state(both, list(handle(1 << 32, 3), handle(1 << 32 | 1, 2, 0, 1))),
			mappings = state(both, nil, list(("<I4I8I8I1"):pack(1, 3, 0, 0))),
			locks = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(0, 1, 1)))),
			["a parent after its child"] = state(list(node(3, 9, "f", REG), node(9, 1, "d"))),
		} do
			local loaded, message = load(fine)
			assert.is_true(loaded, ("%s: %s"):format(what, message))
		end
		for what, bad in pairs {
			["no protocol"] = ("<I1I4I8"):pack(1, 30, 0) .. state():sub(14), ["a ready that is none"] = "\2" .. state():sub(2),
			["flags before INIT"] = ("<I1I4I8"):pack(0, 0, 1) .. state():sub(14),
			["more nodes than bytes"] = state(("<I4"):pack(1000)), ["nodes for 200 GiB"] = state(("<I4"):pack(0xffffffff)),
			["next below the first"] = state(both, nil, nil, nil, 3), ["next that is no ID"] = state(nil, nil, nil, nil,
				1 << 63),
			["the root"] = state(list(node(1, 1, "x"))), ["node 0"] = state(list(node(0, 1, "x"))),
			["two of one ID"] = state(list(node(2, 1, "a"), node(2, 1, "b"))),
			["no parent"] = state(list(node(2, 7, "a"))), ["its own parent"] = state(list(node(2, 2, "a"))),
			["a circle"] = state(list(node(2, 4, "a"), node(3, 2, "b"), node(4, 3, "c"))),
			["a circle, and one below"] = state(list(node(2, 3, "a"), node(3, 2, "b"), node(4, 3, "c"), node(5, 1, "d"))),
			["a file above"] = state(list(node(2, 1, "a", REG), node(3, 2, "b"))),
			["a name with /"] = state(list(node(2, 1, "../x"))), ["a name ."] = state(list(node(2, 1, "."))),
			["a name .."] = state(list(node(2, 1, ".."))), ["a name with NUL"] = state(list(node(2, 1, "a\0b"))),
			["a name too long"] = state(list(node(2, 1, ("x"):rep(256)))), ["no type"] = state(list(node(2, 1, "a",
				{ type = 0 }))),
			["permissions in its type"] = state(list(node(2, 1, "a", { type = fuse.S.DIR | 511 }))),
			["flags that are none"] = state(list(node(2, 1, "a", { flags = 5 }))),
			["behind a link that is not above"] = state(list(node(2, 1, "a", { via = 9 }))),
			["nobody knows it"] = state(list(node(2, 1, "a", { lookups = 0 }))),
			["a handle of none"] = state(both, list(handle(1 << 32, 9))), ["a handle of the root as a file"] = state(both,
				list(handle(1 << 32, 1))),
			["a folder's of a file"] = state(both, list(handle(1 << 32, 3, 0, 1))), ["a handle twice"] = state(both,
				list(handle(1 << 32, 3), handle(1 << 32, 3))),
			["a handle never used"] = state(both, list(handle(0, 3))), ["a slot far away"] = state(both,
				list(handle(1 << 32 | 0xfffffff0, 3))),
			["a handle that makes"] = state(both, list(handle(1 << 32, 3, 64))), ["one that cuts"] = state(both,
				list(handle(1 << 32, 3, 512))),
			["a path alone"] = state(both, list(handle(1 << 32, 3, 0x200000))), ["a lock that is none"] = state(both,
				list(handle(1 << 32, 3, 0, 0, 9))),
			["a mapping of a folder"] = state(both, nil, list(("<I4I8I8I1"):pack(0, 2, 0, 0))),
			["past the window"] = state(both, nil, list(("<I4I8I8I1"):pack(2, 3, 0, 0))),
			["half a granule"] = state(both, nil, list(("<I4I8I8I1"):pack(0, 3, 4096, 0))),
			["past every file"] = state(both, nil, list(("<I4I8I8I1"):pack(0, 3, -GRANULE, 0))),
			["mappings out of order"] = state(both, nil, list(("<I4I8I8I1"):pack(1, 3, 0, 0), ("<I4I8I8I1"):pack(1, 3, 0, 0))),
			["locks of none"] = state(both, nil, nil, list(("<I8I8"):pack(8, 9) .. list(("<I8I8I1"):pack(0, 1, 1)))),
			["no locks"] = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list())),
			["a lock backwards"] = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(2, 1, 1)))),
			["locks that overlap"] = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(0, 5, 1),
				("<I8I8I1"):pack(5, 6, 0)))),
			["an unlocked lock"] = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(0, 1, 2)))),
			["one owner twice"] = state(both, nil, nil, list(("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(0, 1, 1)),
				("<I8I8"):pack(3, 9) .. list(("<I8I8I1"):pack(0, 1, 1)))),
			["bytes left over"] = state() .. "\0",
		} do
			local loaded, message, code = load(bad)
			assert.are.same({ what, nil, "EBADMSG" }, { what, loaded, code })
			assert.is_truthy(message:find("mount's session", 1, true), message)
			local stats = mount:stats()
			assert.are.same({ what, 0, 0, 0 }, { what, stats.nodes, stats.handles, stats.dax_bytes })
		end
	end)
end)
