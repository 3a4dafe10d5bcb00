-- What the guest may believe, and for how long.
local folder = require "spec.support.folder"
local fuse = require "spec.support.fuse"

local KEEP, CACHE_DIR, DIRECT, NOFLUSH = 2, 8, 1, 32

describe("a FUSE mount's cache", function()
	local temporary, mount
	local function open(options)
		if mount then mount:close() end
		options.host = temporary.path
		mount = assert(fuse.new(options))
	end
	before_each(function()
		temporary = folder.new()
		temporary:write("f", "1")
	end)
	after_each(function()
		if mount then mount:close() end
		mount = nil
		temporary:close()
	end)

	for cache, seconds in pairs { strict = 0, auto = 1, always = 86400 } do
		it("lasts " .. seconds .. " s: " .. cache, function()
			open { cache = cache }
			local f = assert(mount:lookup(1, "f"))
			assert.are.same({ seconds, seconds }, { f.entry_valid, f.attr_valid })
			assert.are.equal(seconds, assert(mount:getattr(f.node)).valid)
			assert.are.equal(seconds, assert(mount:setattr(f.node, { mode = 420 })).valid)
			assert.are.equal(seconds, mount:list(1, true).f.entry.entry_valid)
			assert.are.equal(seconds, assert(mount:create(1, "g")).attr_valid)
			local fh, flags = mount:open(f.node)
			assert.are.equal(cache == "always" and KEEP or 0, flags & (KEEP | DIRECT))
			assert.are.equal(NOFLUSH, flags & NOFLUSH)
			assert.are.equal(0, select(2, mount:open(f.node, fuse.O.RDWR)) & NOFLUSH)
			local _, dir_flags = mount:opendir(1)
			assert.are.equal(cache == "always" and KEEP | CACHE_DIR or 0, dir_flags)
			-- That there is none is believed only where nobody else makes one.
			local none, code = mount:lookup(1, "none")
			if cache == "always" then
				assert.are.same({ 0, seconds }, { none.node, none.entry_valid })
			else
				assert.are.equal("ENOENT", code)
			end
			-- What the host does is what the next request sees, whatever the guest keeps.
			temporary:write("f", "longer")
			assert.are.equal(6, assert(mount:getattr(f.node)).size)
			assert.are.equal(6, assert(mount:lookup(1, "f")).attr.size)
			assert.are.equal("longer", mount:read(f.node, fh, 0, 100))
			temporary:write("none", "here")
			assert.are.equal("here", mount:content(1, "none"))
			os.remove(temporary:join "f")
			assert.are.same({ cache ~= "always" and "ENOENT" or nil }, { select(2, mount:lookup(1, "f")) })
			assert.are.equal("longer", mount:read(f.node, fh, 0, 100)) -- open as before
			temporary:write("f", "another")
			assert.are_not.equal(f.node, assert(mount:lookup(1, "f")).node)
		end)
	end

	it("lets a guest see by time and size that a page is old", function()
		open {}
		assert.is_true(mount.agreed.flags & fuse.flag.AUTO_INVAL_DATA ~= 0)
	end)

	it("has the files of a size that is worth it mapped", function()
		temporary:write("big", ("x"):rep(1 << 20))
		temporary:write("small", ("x"):rep((1 << 20) - 1))
		local function dax(name) return mount:lookup(1, name).attr.flags & 2 end
		open { dax = true, window_mib = 2 }
		assert.are.same({ 2, 0, 0 }, { dax "big", dax "small", mount:getattr(1).flags })
		assert.are.equal(2, mount:list(1, true).big.entry.attr.flags)
		open { dax = true } -- without a window
		assert.are.equal(0, dax "big")
		open { dax = false, window_mib = 2 }
		assert.are.equal(0, dax "big")
		mount:close()
		mount = assert(fuse.new { host = temporary.path, dax = true, window_mib = 2, flags = fuse.all_flags })
		assert.are.equal(0, dax "big")
	end)
end)
