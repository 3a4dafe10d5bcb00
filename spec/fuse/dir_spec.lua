-- Reading folders.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"
local scratch = require "spec.support.scratch"

local DT = { FIFO = 1, CHR = 2, DIR = 4, REG = 8, LNK = 10, SOCK = 12 }

describe("a FUSE folder", function()
	local temporary, mount
	before_each(function()
		temporary = folder.new()
		mount = assert(fuse.new { host = temporary.path })
	end)
	after_each(function()
		mount:close()
		temporary:close()
	end)
	local function fill(count) scratch.run(("cd %s && seq -f 'file-%%g' %d | xargs touch"):format(temporary.path,
		count)) end
	local function names(list)
		local all = {}
		for name in pairs(list) do all[#all + 1] = name end
		table.sort(all)
		return all
	end

	it("is listed with what is in it", function()
		temporary:write("d/f", "123")
		scratch.run(("cd %s/d && mkdir e && ln -s x l && mkfifo p"):format(temporary.path))
		local d = assert(mount:lookup(1, "d"))
		for _, plus in ipairs { false, true } do
			local list = mount:list(d.node, plus)
			assert.are.same({ ".", "..", "e", "f", "l", "p" }, names(list))
			assert.are.same({ DT.DIR, DT.DIR, DT.DIR, DT.REG, DT.LNK, DT.FIFO }, { list["."].type, list[".."].type,
				list.e.type, list.f.type,
				list.l.type, list.p.type })
			assert.are.equal(scratch.run(("stat -c %%i %s"):format(temporary:join "d/f")), tostring(list.f.ino))
			if plus then
				assert.are.equal(0, list["."].entry.node)
				assert.are.equal(0, list[".."].entry.node)
				assert.are.equal(3, list.f.entry.attr.size)
				assert.are.equal(list.f.entry.node, assert(mount:lookup(d.node, "f")).node)
			end
		end
	end)

	it("does not tell what is above the root", function()
		for _, plus in ipairs { false, true } do
			local list = mount:list(1, plus)
			assert.are.equal(list["."].ino, list[".."].ino)
		end
	end)

	it("is looked up only as far as the reply goes", function()
		fill(300)
		local fh = assert(mount:opendir(1))
		local list = assert(mount:readdir(1, fh, 0, 1024, true))
		local found = 0
		for _, one in ipairs(list) do if one.entry.node ~= 0 then found = found + 1 end end
		assert.is_true(found > 0 and found < 8, found)
		assert.are.equal(found, mount:stats().nodes)
		for _, one in ipairs(list) do if one.entry.node ~= 0 then mount:forget(one.entry.node) end end
		assert.are.equal(0, mount:stats().nodes)
		assert.are.equal(0, mount:stats().hostile)
	end)

	it("is whole whatever the size of its pieces", function()
		fill(1000)
		for _, plus in ipairs { false, true } do
			for _, size in ipairs { plus and 200 or 64, 512, 4096, 100000 } do
				assert.are.equal(1002, #names(mount:list(1, plus, size)))
			end
		end
	end)

	it("needs room for an entry, and takes 4 GiB for much", function()
		fill(3)
		local fh = assert(mount:opendir(1))
		assert.are.same({ nil, "EINVAL" }, { mount:readdir(1, fh, 0, 24) })
		assert.are.same({ nil, "EINVAL" }, { mount:readdir(1, fh, 0, 4096, false, { room = 16 }) })
		assert.are.equal(5, #assert(mount:readdir(1, fh, 0, 0xffffffff)))
		assert.are.equal(5, #assert(mount:readdir(1, fh, 0, 0xffffffff, true)))
		assert.are.equal(2, #assert(mount:readdir(1, fh, 0, 0xffffffff, false, { room = 16 + 70 })))
	end)

	it("takes any offset", function()
		fill(3)
		local fh = assert(mount:opendir(1))
		assert.are.same({ nil, "EINVAL" }, { mount:readdir(1, fh, -1, 4096) })
		for _, offset in ipairs { 1, 2, 3, 0x7fffffffffffffff, 0x123456789 } do
			local list, code = mount:readdir(1, fh, offset, 4096)
			assert.is_true(list ~= nil or code == "EINVAL", code)
		end
		assert.are.equal(5, #assert(mount:readdir(1, fh, 0, 4096)))
	end)

	it("gives each entry once that is there all the time", function()
		fill(2000)
		local fh = assert(mount:opendir(1))
		local seen, offset, round = {}, 0, 0
		while true do
			local list = assert(mount:readdir(1, fh, offset, 700, round % 2 == 1))
			if #list == 0 then break end
			for _, one in ipairs(list) do
				assert.is_nil(seen[one.name], one.name)
				seen[one.name] = true
			end
			offset = list[#list].off
			round = round + 1
			-- Others come and go.
			assert(mount:create(1, "new-" .. round))
			if round > 5 then assert(mount:unlink(1, "new-" .. (round - 5))) end
			-- And somebody else reads the same handle from elsewhere.
			assert(mount:readdir(1, fh, 0, 300))
		end
		for i = 1, 2000 do assert.is_true(seen["file-" .. i], i) end
	end)

	it("shows what cannot be looked up", function()
		mount:close()
		scratch.run(("ln -s /etc %s"):format(temporary:join "out"))
		mount = assert(fuse.new { host = temporary.path, symlinks = "deny" })
		local out = assert(mount:list(1, true).out)
		assert.are.same({ 0, DT.LNK }, { out.entry.node, out.type })
	end)

	it("is a folder", function()
		temporary:write("f", "")
		local f = assert(mount:lookup(1, "f"))
		assert.are.same({ nil, "ENOTDIR" }, { mount:opendir(f.node) })
		assert.are.same({ nil, "ESTALE" }, { mount:opendir(55) })
		local fh = assert(mount:opendir(1))
		assert.is_true(mount:releasedir(1, fh))
		assert.are.same({ nil, "EBADF" }, { mount:readdir(1, fh, 0, 4096) })
	end)
end)
