-- A registry that lies, stalls, redirects and asks for tokens.
local child = require "spec.support.pull"
local core = require "supermachine.core"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "python3")

describe("a registry's answer", function()
	local server, folder, store

	setup(function()
		if missing then return end
		server = registry.start_fake()
		folder = scratch.folder()
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)
	before_each(function()
		store = folder and scratch.run("mktemp -d " .. folder .. "/store.XXXXXX")
	end)

	-- Nothing is tried again: pull_spec.lua is about that.
	local function begin(name)
		return assert(core.image_pull_begin("http://" .. server.host .. "/" .. name,
			{ store = store, platform = "amd64", retries = 0 }))
	end
	local function pull(name)
		local operation <close> = begin(name)
		return operation:finish()
	end
	check("may have a general content type", function()
		assert(pull "plain"):close()
		assert(pull "good"):close()
	end)

	check("may redirect to another host, which does not see the token", function()
		assert(pull "redirected"):close()
	end)

	check("may ask for an anonymous token", function()
		local log = server:heard(function()
			local image <close> = assert(pull "token/a")
			assert.same({ "x" }, image:process().cmd)
		end)
		local _, tokens = log:gsub("GET /token%?service=fake%%20service&scope=repository%%3Atoken%%2Fa%%3Apull anonymous", "")
		assert.equal(1, tokens)
		assert.matches("GET /elsewhere/ anonymous", log)
	end)

	local cases = {
		{ "schema1", "EOPNOTSUPP", "schema 1" },
		{ "html", "EOPNOTSUPP", "text/html" },
		{ "huge", "EFBIG", "larger than 4194304" },
		{ "mislabelled", "EBADMSG", "announced as" },
		{ "missing", "ENOENT", "sha256:%x+: not there, status 404" },
		{ "cut", "EIO", "/blobs/sha256:%x+: " },
		{ "short", "EBADMSG", "ends after 1000 of 30720 bytes" },
		{ "long", "EBADMSG", "more than its 30720 bytes" },
		{ "other", "EBADMSG", "its bytes have digest" },
		{ "loop", "ELOOP", "redirects" },
		{ "file", "EPROTONOSUPPORT", "rotocol" },
		{ "busy", "EAGAIN", "TOOMANYREQUESTS: slow%?%[31m down" },
		{ "login", "EACCES", "a login is needed" },
		{ "partial", "EIO", "partial: latest: status 206" },
		{ "token/foreign", "EPROTO", "203.0.113.1/token, which is not https" },
		{ "token/b", "EACCES", "no anonymous token: the token server answered 400" },
	}
	for _, case in ipairs(cases) do
		check("is refused: " .. case[1], function()
			local open = scratch.descriptors()
			local image, message, code = pull(case[1])
			assert.equal(open, scratch.descriptors())
			assert.is_nil(image)
			assert.matches(case[3], message)
			assert.equal(case[2], code)
			-- What broke off stays for the next pull.
			local left = scratch.files(store)
			assert.equal(case[1] == "cut" and 1 or 0, #left)
			if left[1] then assert.matches("^partial/%x+$", left[1]) end
		end)
	end

	-- What is hostile about them is the manifest, or the headers before it.  None costs memory.
	local hostile = {
		{ "gigabyte", "EFBIG", "manifest latest: larger than 4194304 bytes" },
		{ "endless", "EFBIG", "manifest latest: larger than 4194304 bytes" },
		{ "headers", "EFBIG", "/manifests/latest: more than 262144 bytes of headers" },
		{ "header-line", nil, "/manifests/latest: " },
		{ "interim", "EFBIG", "/manifests/latest: more than 262144 bytes of headers" },
		{ "trailers", "EFBIG", "/manifests/latest: more than 262144 bytes of headers" },
		{ "garbage", "EIO", "/manifests/latest: .*hunk" },
		{ "bomb", "EBADMSG", "manifest: JSON holds a NUL byte" },
		{ "deep", "EBADMSG", "manifest: JSON is nested too deeply" },
		{ "twice", "EBADMSG", "manifest: JSON has 'layers' twice" },
		{ "digest", "EBADMSG", "layers%[0%]: .*sha256:%x+" },
		{ "part", "EIO", "latest: status 206" },
		{ "stalls", "ETIMEDOUT", "/manifests/latest: " },
	}
	for _, case in ipairs(hostile) do
		check("is refused, and costs no memory: " .. case[1], function()
			local home = child.home()
			finally(function() scratch.remove(home) end)
			local function peak(name)
				local _, message, code, kib = child.pull("http://" .. server.host .. "/" .. name, { HOME = home },
					{ retries = 0, store = store, stall_ms = name == "hostile/stalls" and 1000 or 0 })
				return kib, message, code
			end
			local usual = peak "good"
			local before = scratch.files(store)
			local kib, message, code = peak("hostile/" .. case[1])
			assert.matches(case[3], message)
			assert.matches("127.0.0.1:" .. server.port, message, 1, true)
			if case[2] then assert.equal(case[2], code) end
			assert.is_true(kib - usual < 16 << 10, kib - usual)
			assert.same(before, scratch.files(store))
		end)
	end

	describe("to HEAD", function()
		-- Pulls peek/HOW, whose image is stored; what the server heard, and the pull's numbers.
		local function again(how)
			local stats
			local log = server:heard(function()
				local image <close>, numbers = assert(pull("peek/" .. how))
				assert.same({ "x" }, image:process().cmd)
				stats = numbers
			end)
			return log, stats
		end

		check("spares the manifest of an image that is stored", function()
			for _, how in ipairs { "same", "index" } do
				assert.not_matches("HEAD", (again(how)))
				local log, stats = again(how)
				assert.equal("HEAD /v2/peek/" .. how .. "/manifests/latest\n", log)
				assert.same({ 0, 1 }, { stats.fetched_layers, stats.reused_layers })
			end
		end)

		check("leads to a GET where it names another, nothing, or is not understood", function()
			for _, how in ipairs { "changes", "silent", "long", "404", "405", "500" } do
				again(how)
				assert.equal(("HEAD /v2/peek/%s/manifests/latest\nGET /v2/peek/%s/manifests/latest anonymous\n"):format(how, how),
					(again(how)))
			end
		end)

		check("is not asked for when the image is not whole, and never believed for one that is spoilt", function()
			again "same"
			local image <close> = assert(pull "peek/same")
			for _, digest in ipairs { image:layers()[1].digest, image:digest() } do
				local path = store .. "/blobs/sha256/" .. digest:sub(8)
				local bytes = scratch.read(path)
				scratch.write(path, digest == image:digest() and bytes:gsub("tar", "rat") or "")
				assert.matches("^GET /v2/peek/same/manifests/latest anonymous\n", (again "same"))
				assert.equal(bytes, scratch.read(path))
			end
		end)
	end)

	check("that never ends can be cancelled", function()
		local operation <close> = begin "stuck"
		assert.same({}, core.poll({ { operation:fd(), "r" } }, 300))
		operation:cancel()
		local image, _, code = operation:finish()
		assert.is_nil(image)
		assert.equal("ECANCELED", code)
		assert.matches("^partial/%x+$", table.concat(scratch.files(store), " "))
	end)
end)
