-- Real applications in images by every maker: each file, as Linux sees it through our layers, is what umoci unpacks.
local build = require "spec.support.build"
local folders = require "spec.support.folder"
local lfs = require "lfs"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

-- Why nothing can be mounted here, or nil.
local function no_mounts()
	if not scratch.is_root() then return "needs root, to mount" end
	local known = scratch.read "/proc/filesystems"
	for _, kind in ipairs { "erofs", "overlay" } do
		if not known:find("%f[%w]" .. kind .. "%f[%W]") and not os.execute("modprobe " .. kind .. " 2>/dev/null") then
			return "this kernel mounts no " .. kind
		end
	end
	return not lfs.attributes "/dev/loop-control" and "no loop devices here" or nil
end

-- The table that vendor/images/zoo wrote: name to reference.
local function zoo()
	local folder, images = build.dir .. "/zoo", {}
	for line in io.lines(folder .. "/table") do
		local name, reference = line:match "^(%S+) (%S+)$"
		images[name] = reference:gsub("%%DIR%%", (scratch.run("realpath " .. scratch.quote(folder)):gsub("%%", "%%%%")))
	end
	return images
end

describe("an image of", function()
	local why = no_mounts()
	local folder
	setup(function() folder = folders.new() end)
	teardown(function()
		scratch.run(("findmnt -rno TARGET | grep '^%s/' | sort -r | xargs -r umount"):format(folder.path))
		folder:close()
	end)

	for _, name in ipairs { "nginx", "redis", "postgresql", "python3", "node" } do
		it(name .. " shows each file as umoci unpacks it", function()
			if why then return pending(why) end
			local reference = assert(zoo()[name], "vendor/images/zoo made none")
			local image <close> = assert(sm.image.pull(reference, { store = folder:join "store" }))
			local lower = {}
			for i, layer in ipairs(assert(image:rootfs())) do
				local point = folder:join(("%s-%d"):format(name, i))
				scratch.run(("mkdir %s && mount -t erofs -o loop,ro %s %s"):format(point, scratch.quote(layer.path), point))
				table.insert(lower, 1, point)
			end
			local root = folder:join(name)
			scratch.run(("mkdir %s && mount -t overlay -o ro,lowerdir=%s overlay %s"):format(root, table.concat(lower, ":"),
				root))
			local seen = folder:join(name .. ".list")
			scratch.run(("LC_ALL=C.UTF-8 python3 spec/support/list_tree.py %s >%s"):format(root, seen))
			-- Not the root folder itself, the first line: a machine's is that of its writable layer.
			scratch.run(("tail -n +2 '%s/zoo/%s.list' >%s.expected; tail -n +2 %s >%s.seen"):format(build.dir, name, seen, seen,
				seen))
			scratch.run(("diff %s.expected %s.seen | head -n 20; cmp %s.expected %s.seen"):format(seen, seen, seen, seen))
			local files, bytes = 0, 0
			for line in io.lines(seen) do
				files, bytes = files + 1, bytes + tonumber(line:match "[\"'] 0o%d+ %d+ %d+ %-?%d+ (%d+) ")
			end
			assert.is_true(files > 100)
			print(("  %-12s %6d files, %5.1f MiB, %d layers: equal"):format(name, files, bytes / (1 << 20), #lower))
		end)
	end
end)
