-- What a guest can make us keep.
local build = require "spec.support.build"
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

describe("a FUSE mount's limits", function()
	local temporary, mount
	local function open(options)
		if mount then mount:close() end
		options.host = temporary.path
		mount = assert(fuse.new(options))
		return mount
	end
	before_each(function() temporary = folder.new() end)
	after_each(function()
		if mount then mount:close() end
		mount = nil
		temporary:close()
	end)
	local function fill(count, per)
		scratch.run(("cd %s && for d in $(seq %d); do mkdir d$d; (cd d$d; seq -f 'f%%g' %d | xargs touch); done")
			:format(temporary.path, count, per))
	end

	it("bound the descriptors, and files are found again", function()
		fill(20, 10)
		open { max_descriptors = 16 }
		local before, nodes = scratch.descriptors(), {}
		for d = 1, 20 do
			local dir = assert(mount:lookup(1, "d" .. d))
			for f = 1, 10 do nodes[#nodes + 1] = { assert(mount:lookup(dir.node, "f" .. f)), dir.node } end
		end
		for round = 1, 3 do
			for _, node in ipairs(nodes) do
				assert.are.equal(node[1].attr.ino, assert(mount:getattr(node[1].node)).ino)
				if round == 2 then assert(mount:release(node[1].node, assert(mount:open(node[1].node)))) end
			end
			local stats = mount:stats()
			assert.is_true(stats.descriptors <= 17, stats.descriptors)
			assert.is_true(scratch.descriptors() - before <= 16)
		end
		assert.is_true(mount:stats().evicted > 500)
		assert.are.equal(0, mount:stats().stale)
		for _, node in ipairs(nodes) do mount:forget(node[1].node) end
	end)

	it("find a file again where the guest moved it", function()
		fill(30, 1)
		open { max_descriptors = 16 }
		local d1, d2 = assert(mount:lookup(1, "d1")), assert(mount:lookup(1, "d2"))
		local f = assert(mount:lookup(d1.node, "f1"))
		assert(mount:mkdir(d1.node, "below"))
		local below = assert(mount:lookup(d1.node, "below"))
		local deep = assert(mount:create(below.node, "deep"))
		assert(mount:release(deep.node, deep.fh))
		assert(mount:rename(d1.node, "f1", d2.node, "moved"))
		assert(mount:rename(1, "d1", d2.node, "d1"))
		local function thrash()
			for i = 3, 30 do assert(mount:getattr(assert(mount:lookup(1, "d" .. i)).node)) end
		end
		thrash()
		assert.are.equal(f.attr.ino, assert(mount:getattr(f.node)).ino)
		thrash()
		assert.are.equal(deep.attr.ino, assert(mount:getattr(deep.node)).ino)
		-- The host's doing is found out, for that file alone.
		scratch.run(("cd %s/d2 && mv moved elsewhere && rm -r d1/below/deep && touch d1/below/deep"):format(temporary.path))
		thrash()
		assert.are.same({ nil, "ESTALE" }, { mount:getattr(f.node) })
		assert.are.same({ nil, "ESTALE" }, { mount:getattr(deep.node) })
		assert.are.equal(2, mount:stats().stale)
		assert.are.equal(f.node, assert(mount:lookup(d2.node, "elsewhere")).node)
		assert.is_truthy(mount:getattr(f.node))
	end)

	it("keep what is open, gone or not", function()
		fill(40, 1)
		open { max_descriptors = 16 }
		local open_ones = {}
		for i = 1, 30 do
			local new = assert(mount:create(1, "new" .. i))
			assert(mount:write(new.node, new.fh, 0, "data" .. i))
			assert(mount:unlink(1, "new" .. i))
			open_ones[i] = new
		end
		for i = 1, 40 do assert(mount:getattr(assert(mount:lookup(1, "d" .. i)).node)) end
		for i, new in ipairs(open_ones) do
			assert.are.equal(#("data" .. i), mount:getattr(new.node).size)
			assert.are.equal("data" .. i, mount:read(new.node, new.fh, 0, 100))
		end
		for _, new in ipairs(open_ones) do
			assert(mount:release(new.node, new.fh))
			mount:forget(new.node)
		end
		assert.is_true(mount:stats().descriptors <= 17)
	end)

	it("bound the nodes", function()
		fill(1, 100)
		open { max_nodes = 50 }
		local d = assert(mount:lookup(1, "d1"))
		local nodes = {}
		for i = 1, 49 do nodes[i] = assert(mount:lookup(d.node, "f" .. i)).node end
		assert.are.same({ nil, "ENFILE" }, { mount:lookup(d.node, "f50") })
		assert.is_truthy(mount:lookup(d.node, "f1")) -- known ones are as good as before
		-- What would be one too many is not made.
		assert.are.same({ nil, "ENFILE" }, { mount:create(d.node, "new") })
		assert.are.same({ nil, "ENFILE" }, { mount:mkdir(d.node, "new") })
		assert.are.same({ nil, "ENFILE" }, { mount:symlink(d.node, "new", "x") })
		assert.are.same({ nil, "ENOENT" }, { mount:lookup(d.node, "new") })
		-- A listing goes on without, and takes none of the last ones.
		assert.are.equal(0, mount:list(d.node, true).f60.entry.node)
		for i = 1, 8 do mount:forget(nodes[i + 10]) end
		local before = mount:stats().nodes
		assert.are.equal(0, mount:list(d.node, true).f60.entry.node)
		assert.are.equal(before, mount:stats().nodes)
		assert.is_truthy(mount:lookup(d.node, "f60"))
		mount:forget(nodes[7])
		mount:forget(nodes[7])
		assert.is_true(mount:stats().nodes <= 50)
	end)

	it("are those of a million lookups", function()
		fill(10, 100)
		open { max_descriptors = 64, plain = true }
		local dirs = {}
		for i = 1, 10 do dirs[i] = assert(mount:lookup(1, "d" .. i)).node end
		local serve, server = mount.server.serve, mount.server
		local before = scratch.descriptors()
		local function memory() return tonumber(scratch.read("/proc/self/status"):match "VmRSS:%s+(%d+)") end
		local names = {}
		for i = 0, 999 do names[i] = fuse.request("LOOKUP", dirs[i // 100 + 1], "f" .. (i % 100 + 1) .. "\0") end
		local rounds = 1000
		local warm
		for round = 1, rounds do
			for i = 0, 999 do serve(server, names[i], 144) end
			if round == rounds // 4 then
				collectgarbage()
				warm = memory()
			end
		end
		collectgarbage()
		assert.are.equal(1010, mount:stats().nodes)
		assert.is_true(scratch.descriptors() - before <= 64)
		-- A sanitizer keeps what was freed.
		local sanitized = os.execute(("nm -D --undefined-only '%s/supermachine' | grep -q '__[at]san_'"):format(build.dir))
		if not sanitized then assert.is_true(memory() - warm < 4096, memory() - warm) end
		-- Each was counted.
		for d = 1, 10 do
			for f = 1, 100 do
				local node = assert(mount:lookup(dirs[d], "f" .. f)).node
				mount:forget(node, rounds + 1)
			end
		end
		assert.are.same({ 10, 0 }, { mount:stats().nodes, mount:stats().hostile })
	end)

	it("are the process's own, which others need too", function()
		fill(50, 20)
		local program = [[
			local fuse = require "spec.support.fuse"
			local mount = assert(fuse.new { host = arg[1], max_descriptors = 4096 })
			local nodes, handles = {}, {}
			for d = 1, 50 do
				local dir = assert(mount:lookup(1, "d" .. d))
				for f = 1, 20 do nodes[#nodes + 1] = assert(mount:lookup(dir.node, "f" .. f)).node end
			end
			for _, node in ipairs(nodes) do assert(mount:getattr(node)) end
			local refused
			for _, node in ipairs(nodes) do
				local fh, code = mount:open(node)
				if fh then handles[#handles + 1] = { node, fh } else refused = code end
			end
			assert(refused == "ENFILE" or refused == "EMFILE", refused)
			assert(#handles >= 20, #handles)
			for _, node in ipairs(nodes) do
				local attr, code = mount:getattr(node)
				assert(attr or code == "EMFILE", code)
			end
			for _, one in ipairs(handles) do assert(mount:release(one[1], one[2])) end
			for _, node in ipairs(nodes) do assert(mount:getattr(node)) end
			assert(mount:stats().stale == 0)
			print "fine"
		]]
		local script = temporary:write("program/limited.lua", program)
		assert.are.equal("fine", scratch.run(("ulimit -n 64 && %s/supermachine %s %s"):format(build.dir, script,
			temporary.path)))
	end)

	it("hold in a storm of files that go while they are open", function()
		open { max_descriptors = 16 }
		local d = assert(mount:mkdir(1, "d"))
		local before = scratch.descriptors()
		for round = 1, 300 do
			local a = assert(mount:create(d.node, "f"))
			local b = assert(mount:open(a.node, fuse.O.RDWR))
			assert(mount:unlink(d.node, "f"))
			local c = assert(mount:create(d.node, "f"))
			assert.are_not.equal(a.node, c.node)
			assert(mount:write(a.node, b, 0, "old" .. round))
			assert(mount:write(c.node, c.fh, 0, "new"))
			assert.are.equal("old" .. round, mount:read(a.node, a.fh, 0, 100))
			mount:forget(a.node)
			assert(mount:release(a.node, a.fh))
			assert(mount:rename(d.node, "f", 1, "g"))
			assert.are.equal("old" .. round, mount:read(a.node, b, 0, 100))
			assert(mount:release(a.node, b))
			assert(mount:unlink(1, "g"))
			assert(mount:release(c.node, c.fh))
			mount:forget(c.node)
		end
		assert.are.same({ 1, 0 }, { mount:stats().nodes, mount:stats().handles })
		assert.is_true(scratch.descriptors() - before <= 2)
		assert.are.equal(0, mount:stats().hostile)
	end)

	it("do not end at a folder that is very deep", function()
		open { max_descriptors = 16 }
		local node, nodes = 1, {}
		for i = 1, 400 do
			node = assert(mount:mkdir(node, "d")).node
			nodes[i] = node
		end
		for i = 400, 1, -37 do assert(mount:getattr(nodes[i])) end
		for _ = 1, 3 do for _, i in ipairs { 400, 1, 200 } do assert(mount:getattr(nodes[i])) end end
		assert.is_true(mount:stats().descriptors <= 17)
		for i = 1, 400 do mount:forget(nodes[i]) end
		assert.are.equal(0, mount:stats().nodes)
	end)
end)
