-- A registry that lies, stalls, redirects and asks for tokens.
local core = require "supermachine.core"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local missing = not scratch.has "python3" and "python3 is not installed" or nil

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
	local function check(name, run)
		it(name, function()
			if missing then pending(missing) return end
			run()
		end)
	end

	check("may have a general content type", function()
		assert(pull "plain"):close()
		assert(pull "good"):close()
	end)

	check("may redirect to another host, which does not see the token", function()
		assert(pull "redirected"):close()
	end)

	check("may ask for an anonymous token", function()
		local before = #server:log()
		local image <close> = assert(pull "token/a")
		assert.same({ "x" }, image:process().cmd)
		local log = server:log():sub(before + 1)
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
		{ "short", "EBADMSG", "ends after 1000 of 21000 bytes" },
		{ "long", "EBADMSG", "more than its 21000 bytes" },
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
