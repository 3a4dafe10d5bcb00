-- Whole images: several layers at a time, each where it belongs.
local core = require "supermachine.core"
local erofs = require "spec.support.erofs"
local layer = require "spec.support.layer"
local layout = require "spec.support.oci_layout"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

describe("an image's layers", function()
	local folder, images
	before_each(function()
		folder = scratch.folder()
		images = layout.new(folder .. "/images")
	end)
	after_each(function() scratch.remove(folder) end)

	local function tar(code)
		return scratch.read(layer.tar(folder .. "/one.tar", code))
	end

	local function pull(layers, store)
		images:tag(images:image { layers = layers }, "t")
		return assert(sm.image.pull("oci:" .. images.path .. ":t",
			{ store = folder .. "/" .. (store or "store"), platform = "linux/amd64" }))
	end

	local function tree(path)
		layer.fsck(path)
		local reader <close> = erofs.open(path)
		return reader:tree()
	end

	it("are the same whether one or many are made at a time, and stand where their ids say", function()
		local layers = {}
		layers[1] = tar "add('base', data='b' * 70000); add('tmp', 'dir', mode=0o1777); add('lib', 'symlink', to='usr/lib')"
		-- every third leans on those below it, the last of them on a link that another one made
		for i = 2, 12 do
			layers[i] = tar(i % 3 == 0 and ("add('tmp/f%d'); add('lib/l%d', 'link', to='%s')"):format(i, i,
				i == 3 and "base" or "usr/lib/l" .. i - 3)
				or ("add('d%d', 'dir'); add('d%d/f', data='x' * %d)"):format(i, i, i * 10000))
		end
		local bytes = {}
		for _, threads in ipairs { 1, 4, 64 } do
			local image <close> = pull(layers, "store" .. threads)
			local made = assert(image:rootfs { threads = threads })
			assert.are.equal(12, #made)
			local chain
			for i, one in ipairs(made) do
				local diff_id = layout.digest(layers[i])
				chain = chain and layout.digest(chain .. " " .. diff_id) or diff_id
				local id = i % 3 == 0 and chain or diff_id
				assert.are.equal(core.erofs_path(folder .. "/store" .. threads, id), one.path)
				assert.is_false(one.reused)
				local content = scratch.read(one.path)
				assert.is_true(content == (bytes[i] or content), "layer " .. i)
				bytes[i] = content
			end
			for _, one in ipairs(assert(image:rootfs())) do assert.is_true(one.reused) end
			local top = tree(made[12].path)
			assert.are.same({ 70000, tonumber("1777", 8) }, { top["usr/lib/l12"].size, top.tmp.mode })
		end
	end)

	it("fail by the one that is wrong, with nothing of it left", function()
		local layers = { tar "add('base')" }
		for i = 2, 6 do layers[i] = tar(("add('tmp/f%d', data='x' * 1000)"):format(i)) end
		layers[4] = tar "add('fine'); add('../x')"
		for _, threads in ipairs { 1, 3, 8 } do
			local image <close> = pull(layers, "store" .. threads)
			local made, message, code = image:rootfs { threads = threads }
			assert.is_nil(made)
			assert.are.equal("EBADMSG", code)
			for _, part in ipairs { "oci:", "layer 4 (" .. layout.digest(layers[4]), "entry '../x'" } do
				assert.is_truthy(message:find(part, 1, true), message)
			end
			for _, file in ipairs(scratch.files(folder .. "/store" .. threads)) do
				assert.is_nil(file:match "^erofs/.*%.tmp", file)
				assert.is_nil(file:find(layout.digest(layers[4]):sub(8) .. ".erofs", 1, true))
			end
		end
	end)

	it("may be as many as a disk has partitions", function()
		local layers = {}
		for i = 1, 255 do layers[i] = "" end
		layers[1] = tar "add('f', data='base')"
		layers[255] = tar "add('l', 'link', to='f')"
		local image <close> = pull(layers)
		local made = assert(image:rootfs())
		local paths = {}
		for i, one in ipairs(made) do paths[i] = one.path end
		assert.are.equal(4, tree(paths[255]).l.size)
		assert.are.equal(255 + 2, #assert(core.composite(paths, folder .. "/disk")).segments)
	end)

	it("refuse options that are none", function()
		local image <close> = pull { tar "add('f')" }
		assert.has_error(function() image:rootfs { threads = -1 } end)
		assert.has_error(function() image:rootfs { thread = 1 } end)
	end)
end)
