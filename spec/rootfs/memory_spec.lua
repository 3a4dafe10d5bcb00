-- What converting a layer takes in memory: by the entry, not by what the files hold.
local build = require "spec.support.build"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

describe("converting a layer", function()
	local folder
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	local CHILD = [[
local core = require "supermachine.core"
local operation <close> = assert(core.erofs_begin(arg[1], arg[1] .. ".erofs"))
local stats = assert(operation:finish())
for line in io.lines "/proc/self/status" do
	local peak = line:match "^VmHWM:%s+(%d+) kB"
	if peak then print(stats.tar_entries, peak) end
end
]]

	-- In a process of its own: entries, and the most bytes that it had.
	local function measure(tar)
		scratch.write(folder .. "/child.lua", CHILD)
		local said = scratch.run(("'%s/supermachine' '%s/child.lua' '%s'"):format(build.dir, folder, tar))
		local entries, peak = said:match "(%d+)%s+(%d+)$"
		return tonumber(entries), tonumber(peak) * 1024
	end

	local function is_sanitized()
		return (os.execute(("nm -D --undefined-only '%s/supermachine' | grep -q '__[at]san_'"):format(build.dir)))
	end

	-- A tree as npm makes them: many small files with long names, hard links, some attributes.
	local TREE = [[
import sys, zlib
pack = zlib.compressobj(1, zlib.DEFLATED, 31)
out = open(sys.argv[1], 'wb')
names = 0
def block(name, kind, size=0, to=b''):
    text = (name.ljust(100, b'\0') + b'0000644\0' + b'0000000\0' * 2 + b'%011o\0' % size + b'0' * 11 + b'\0' +
            b' ' * 8 + kind +
            to.ljust(100, b'\0') + b'ustar\00000').ljust(512, b'\0')
    return text[:148] + b'%06o\0 ' % sum(text) + text[156:]
record = b'30 SCHILY.xattr.user.origin=npm'
record = (b'%d ' % len(record)) + record[3:-1] + b'\n'
attribute = block(b'pax', b'x', len(record)) + record.ljust(512, b'\0')
for package in range(1000):
    folder = b'node_modules/@scope-%d/package-%d/dist' % (package % 50, package)
    parts = [block(folder + b'/', b'5')]
    for i in range(199):
        name = b'component-with-a-long-name-%05d.production.min.js' % (i * 7)
        names += len(name)
        path = folder + b'/' + name
        if i % 20 == 7:
            parts.append(block(path, b'1', to=first))
        else:
            parts.append(attribute * (i % 20 == 3) + block(path, b'0', 5) + b'bytes'.ljust(512, b'\0'))
            first = path
    out.write(pack.compress(b''.join(parts)))
out.write(pack.compress(bytes(1024)) + pack.flush())
print(names)
]]

	it("takes at most 200 bytes an entry, besides the names", function()
		layer.tar(folder .. "/small.tar", "add('f', data='x' * 300000); sparse('s', 1 << 20, '1 0 1', 'x')",
			{ mode = "w:gz" })
		local _, least = measure(folder .. "/small.tar")
		scratch.write(folder .. "/tree.py", TREE)
		local names = tonumber(scratch.run(("python3 '%s/tree.py' '%s/large.tar'"):format(folder, folder)))
		local entries, peak = measure(folder .. "/large.tar")
		layer.fsck(folder .. "/large.tar.erofs")
		assert.are.equal(200000, entries)
		if is_sanitized() then return pending "a sanitizer's memory is not ours" end
		print(("  %.0f bytes an entry, %.0f of name"):format((peak - least) / entries, names / entries))
		assert.is_true(peak - least <= entries * 200 + names, (peak - least) / entries .. " bytes an entry")
	end)

	it("takes no more for large files", function()
		layer.tar(folder .. "/small.tar", "add('f', data='x' * 300000); sparse('s', 1 << 20, '1 0 1', 'x')",
			{ mode = "w:gz" })
		layer.tar(folder .. "/large.tar", [[
			sparse('sparse', 2 << 30, '3 0 1 1073741824 1 2147483647 1', 'xyz')
			sparse('hole', 2 << 40, '1 0 0')
			add('full', data=bytes(96 << 20))
		]], { mode = "w:gz" })
		local _, least = measure(folder .. "/small.tar")
		local _, peak = measure(folder .. "/large.tar")
		if is_sanitized() then return pending "a sanitizer's memory is not ours" end
		assert.is_true(peak - least < (2 << 20), (peak - least) // 1024 .. " KiB more")
	end)
end)
