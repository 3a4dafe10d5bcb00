-- Real applications in images by every maker, from files and from every kind of registry: each file, as Linux sees it
-- through our layers, is what umoci unpacks.
local build = require "spec.support.build"
local certificates = require "spec.support.certificates"
local core = require "supermachine.core"
local folders = require "spec.support.folder"
local lfs = require "lfs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local images = {
	{ "nginx", "buildah" }, { "redis", "podman" }, { "postgresql", "skopeo, zstd" }, { "python3", "umoci" },
	{ "node", "skopeo, gzip" },
}
local ways = { "anonymous", "file", "htpasswd", "TLS", "token" }

local missing
for _, name in ipairs { "docker-registry", "skopeo", "openssl", "perl", "python3" } do
	if not scratch.has(name) then missing = name .. " is not installed" end
end
if not scratch.is_root() and not lfs.attributes(build.dir .. "/zoo/table") then
	missing = "no images here: vendor/images/zoo makes them, as root"
end

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
	local folder, references = build.dir .. "/zoo", {}
	for line in io.lines(folder .. "/table") do
		local name, reference = line:match "^(%S+) (%S+)$"
		references[name] = reference:gsub("%%DIR%%", (scratch.run("realpath " .. scratch.quote(folder)):gsub("%%", "%%%%")))
	end
	return references
end

-- How many files a list of list_tree.py has, and their bytes.
local function sums(list)
	local files, bytes = 0, 0
	for line in io.lines(list) do
		files, bytes = files + 1, bytes + tonumber(line:match "[\"'] 0o%d+ %d+ %d+ %-?%d+ (%d+) ")
	end
	return files, bytes
end

describe("an image of", function()
	local unmountable = no_mounts()
	local folder, references, issuer
	local servers, auth, pushed, rows = {}, {}, {}, {}

	setup(function()
		if missing then return end
		folder, references = folders.new(), zoo()
		servers.anonymous = registry.start()
		for _, image in ipairs(images) do
			local name = image[1]
			servers.anonymous:push(assert(references[name], "vendor/images/zoo made none"), name .. ":latest",
				"--all --preserve-digests --digestfile " .. folder:join "pushed")
			pushed[name] = scratch.read(folder:join "pushed"):match "%S+"
		end
		local storage = servers.anonymous.storage
		auth.htpasswd = registry.htpasswd(folder.path)
		auth.token, issuer = registry.tokens(folder.path)
		for way, text in pairs(auth) do servers[way] = registry.start { storage = storage, auth = text } end
		certificates.authority(folder.path, "ca")
		certificates.sign(folder.path, "ca", "server")
		servers.TLS = registry.start { storage = storage,
			tls = { certificate = folder:join "server.crt", key = folder:join "server.key" } }
	end)
	teardown(function()
		if missing then return end
		scratch.run(("findmnt -rno TARGET | grep '^%s/' | sort -r | xargs -r umount"):format(folder.path))
		if issuer then issuer:stop() end
		for _, server in pairs(servers) do server:stop() end
		folder:close()
		local line = "  %-11s %-13s %-10s %6s %7s %7s  %s"
		print(line:format("image", "made by", "from", "files", "MiB", "layers", "equal"))
		for _, row in ipairs(rows) do print(line:format(table.unpack(row))) end
		print "  mounted: type, mode, owner, mtime, size, xattrs, link target and sha256 of every file are umoci's"
		print "  bytes:   the manifest is what was pushed, and every EROFS file has the bytes of the image's first row"
	end)

	-- Pulled into a store of its own, as one who may, or as a stranger; from a registry, converted on the way.
	local function pull(name, from, stranger)
		local options, reference = { store = folder:join "store", rootfs = from ~= "file" }, references[name]
		if from == "TLS" then
			reference = servers.TLS.host .. "/" .. name
			options.ca_file = not stranger and folder:join "ca" or nil
		elseif from ~= "file" then
			reference = "http://" .. servers[from].host .. "/" .. name
		end
		if auth[from] and not stranger then options.username, options.password = "user", "secret" end
		return sm.image.pull(reference, options)
	end
	local function forget() scratch.run("rm -rf " .. folder:join "store") end

	-- Its layers' EROFS files, lowest first, what these hash to, and its manifest's digest.
	local function bake(name, from)
		local image <close> = assert(pull(name, from))
		local paths, hashes = {}, {}
		for i, layer in ipairs(assert(image:rootfs())) do
			paths[i], hashes[i] = layer.path, assert(core.sha256_file(layer.path))
		end
		return paths, hashes, image:digest()
	end

	-- What Linux sees of these layers, as a list.
	local function mounted(name, paths)
		local lower = {}
		for i, path in ipairs(paths) do
			local point = folder:join(("%s-%d"):format(name, i))
			scratch.run(("mkdir %s && mount -t erofs -o loop,ro %s %s"):format(point, scratch.quote(path), point))
			table.insert(lower, 1, point)
		end
		local root, seen = folder:join(name), folder:join(name .. ".list")
		scratch.run(("mkdir %s && mount -t overlay -o ro,lowerdir=%s overlay %s"):format(root, table.concat(lower, ":"),
			root))
		scratch.run(("LC_ALL=C.UTF-8 python3 spec/support/list_tree.py %s >%s"):format(root, seen))
		scratch.run(("umount %s %s"):format(root, table.concat(lower, " ")))
		return seen
	end

	for _, image in ipairs(images) do
		local name, maker = image[1], image[2]
		local expected = ("%s/zoo/%s.list"):format(build.dir, name)
		local reference -- hashes of the first one's EROFS files
		local function row(from, hashes, equal)
			local files, bytes = sums(expected)
			rows[#rows + 1] = { name, maker, from, files, ("%.1f"):format(bytes / (1 << 20)), #hashes, equal }
		end

		it(name .. " from a registry shows each file as umoci unpacks it", function()
			if missing or unmountable then return pending(missing or unmountable) end
			finally(forget)
			local paths, hashes, digest = bake(name, "anonymous")
			assert.equal(pushed[name], digest)
			local seen = mounted(name, paths)
			-- Not the root folder itself, the first line: a machine's is that of its writable layer.
			local rest = seen .. ".rest"
			scratch.run(("tail -n +2 %s >%s; tail -n +2 %s | diff %s - >%s.diff || { head -n 20 %s.diff; exit 1; }")
				:format(scratch.quote(expected), rest, seen, rest, rest, rest))
			assert.is_true(sums(seen) > 100)
			reference = hashes
			row("anonymous", hashes, "mounted")
		end)

		it(name .. " is the same from its file and from every registry", function()
			if missing then return pending(missing) end
			finally(forget)
			for i, from in ipairs(ways) do
				if i > 1 or not reference then
					if auth[from] or from == "TLS" then
						local none, _, code = pull(name, from, true)
						assert.same({ from, nil, auth[from] and "EACCES" or "EPROTO" }, { from, none, code })
					end
					local _, hashes, digest = bake(name, from)
					-- From docker's kind of archive its manifest is made up.
					if from ~= "file" or not references[name]:find "^docker%-archive:" then
						assert.same({ from, pushed[name] }, { from, digest })
					end
					assert.same({ from, reference or hashes }, { from, hashes })
					reference = reference or hashes
					row(from, hashes, i > 1 and "bytes" or "first")
					forget()
				end
			end
		end)
	end
end)
