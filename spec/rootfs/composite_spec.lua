-- The layers of an image as partitions of one disk.
local core = require "supermachine.core"
local layer = require "spec.support.layer"
local scratch = require "spec.support.scratch"

-- An independent reading of the table: both copies, their checksums, and what they say.
local READER = [[
import struct, sys, uuid, zlib
disk = open(sys.argv[1], 'rb')
disk.seek(0, 2)
size = disk.tell()
def at(offset, count):
    disk.seek(offset)
    return disk.read(count)
mbr = at(0, 512)
assert mbr[510:] == b'\x55\xaa' and mbr[450] == 0xee and mbr[462:510] == bytes(48), 'protective MBR'
assert struct.unpack('<II', mbr[454:462]) == (1, size // 512 - 1), 'protective MBR range'
def header(lba):
    raw = at(lba * 512, 512)
    (sign, revision, length, crc, zero, mine, other, first, last, guid, entries, count, step, table_crc) = \
        struct.unpack('<8sIIIIQQQQ16sQIII', raw[:92])
    assert sign == b'EFI PART' and revision == 0x10000 and length == 92 and zero == 0 and raw[92:] == bytes(420)
    assert zlib.crc32(raw[:16] + bytes(4) + raw[20:92]) == crc, 'header checksum'
    table = at(entries * 512, count * step)
    assert step == 128 and count >= 128 and zlib.crc32(table) == table_crc, 'table checksum'
    return dict(mine=mine, other=other, first=first, last=last, guid=guid, entries=entries, count=count, table=table)
one, two = header(1), header(size // 512 - 1)
assert (one['mine'], one['other'], one['entries']) == (1, size // 512 - 1, 2)
assert (two['mine'], two['other']) == (size // 512 - 1, 1)
assert all(one[key] == two[key] for key in ('first', 'last', 'guid', 'count', 'table'))
sectors = one['count'] // 4
assert one['first'] >= 2 + sectors and two['entries'] > two['last'] and two['entries'] + sectors <= two['mine']
seen = {one['guid']}
end = one['first']
for i in range(one['count']):
    entry = one['table'][i * 128:i * 128 + 128]
    if entry == bytes(128):
        continue
    kind, guid, first, last, flags = struct.unpack('<16s16sQQQ', entry[:56])
    assert str(uuid.UUID(bytes_le=kind)).upper() == '0FC63DAF-8483-4772-8E79-3D69D8477DE4' and flags == 0
    assert guid not in seen and uuid.UUID(bytes_le=guid).version == 8
    seen.add(guid)
    assert first >= end and first % 2048 == 0 and last >= first and last <= one['last']
    end = last + 1
    print(i + 1, entry[56:].decode("utf-16-le").rstrip("\0"), first * 512, (last - first + 1) * 512,
          uuid.UUID(bytes_le=guid))
]]

describe("the composite disk", function()
	local folder
	before_each(function() folder = scratch.folder() end)
	after_each(function() scratch.remove(folder) end)

	-- { number, name, offset, bytes, guid } for each partition
	local function partitions(disk)
		scratch.write(folder .. "/gpt.py", READER)
		local list = {}
		for line in scratch.run(("python3 '%s/gpt.py' '%s'"):format(folder, disk)):gmatch "[^\n]+" do
			local number, name, offset, bytes, guid = line:match "^(%d+) (%S+) (%d+) (%d+) (%S+)$"
			assert(number, line)
			list[#list + 1] = { tonumber(number), name, tonumber(offset), tonumber(bytes), guid }
		end
		return list
	end

	-- Files that stand for layers: `count` of them, of some multiples of 4 KiB.
	local function make_layers(count)
		local paths = {}
		for i = 1, count do
			paths[i] = ("%s/layer%d"):format(folder, i)
			scratch.write(paths[i], (("layer %6d of the disk\n"):format(i):rep(4096) ):sub(1, 4096 * (1 + i % 3)))
		end
		return paths
	end

	local function slice(path, offset, count)
		local file <close> = assert(io.open(path, "rb"))
		file:seek("set", offset)
		return file:read(count)
	end

	for _, count in ipairs { 1, 3, 128, 129, 255 } do
		it(("has a partition for each of %d layers"):format(count), function()
			local paths, disk = make_layers(count), folder .. "/disk"
			local said = assert(core.composite(paths, disk))
			local list = partitions(disk)
			assert.are.equal(count, #list)
			for i, partition in ipairs(list) do
				local content = scratch.read(paths[i])
				assert.are.same({ i, "layer-" .. i - 1, #content }, { partition[1], partition[2], partition[4] })
				assert.is_true(slice(disk, partition[3], #content) == content, "content of " .. i)
			end
			-- The segments: memory, a file each, memory; ascending, apart, within the disk.
			assert.are.equal(count + 2, #said.segments)
			local stop = 0
			for i, segment in ipairs(said.segments) do
				assert.is_true(segment.offset >= stop)
				stop = segment.offset + segment.length
				assert.are.equal((i == 1 or i == count + 2) and "memory" or "file", segment.source)
			end
			assert.are.equal(said.bytes, stop)
			assert.are.equal(0, said.bytes % 512)
		end)
	end

	it("is the same for the same layers, and another for others", function()
		local paths = make_layers(3)
		assert(core.composite(paths, folder .. "/a"))
		assert(core.composite(paths, folder .. "/b"))
		assert.is_true(scratch.read(folder .. "/a") == scratch.read(folder .. "/b"))
		assert(core.composite({ paths[2], paths[1], paths[2] }, folder .. "/c"))
		local a, c = partitions(folder .. "/a"), partitions(folder .. "/c")
		assert.are_not.equal(a[1][5], c[1][5])
	end)

	it("of real images holds what their file system checker likes", function()
		layer.tar(folder .. "/l.tar", "add('a', data='x' * 100000)")
		assert(layer.bake(folder .. "/l.tar", folder .. "/l.erofs"))
		assert(core.composite({ folder .. "/l.erofs", folder .. "/l.erofs" }, folder .. "/disk"))
		for _, partition in ipairs(partitions(folder .. "/disk")) do
			scratch.write(folder .. "/part", slice(folder .. "/disk", partition[3], partition[4]))
			layer.fsck(folder .. "/part")
		end
	end)

	it("is refused without layers, with too many, and for files that are no images", function()
		local function assert_refused(paths, code, part)
			local said, message, name = core.composite(paths, folder .. "/disk")
			assert.is_nil(said)
			assert.are.equal(code, name)
			assert.is_truthy(message:find(part, 1, true), message)
			assert.is_nil(io.open(folder .. "/disk"))
		end
		assert_refused({}, "E2BIG", "0 layers")
		assert_refused(make_layers(256), "E2BIG", "256 layers")
		assert_refused({ folder .. "/none" }, "ENOENT", "none")
		scratch.write(folder .. "/odd", ("x"):rep(1000))
		assert_refused({ folder .. "/odd" }, "EINVAL", "1000 bytes")
		scratch.write(folder .. "/empty", "")
		assert_refused({ folder .. "/empty" }, "EINVAL", "0 bytes")
	end)
end)
