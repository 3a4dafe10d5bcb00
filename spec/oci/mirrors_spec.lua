-- The table of registries in the user's settings.
local child = require "spec.support.pull"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "python3")

describe("the table of registries", function()
	local server, other, home

	setup(function()
		if missing then return end
		server = registry.start_fake "auth_registry.py"
		other = registry.start_fake "auth_registry.py"
	end)
	teardown(function()
		if server then server:stop() end
		if other then other:stop() end
	end)
	before_each(function() home = not missing and child.home() or nil end)
	after_each(function() if home then scratch.remove(home) end end)

	local function settings(text, path)
		path = home .. (path or "/.config/supermachine/config.json")
		scratch.run("mkdir -p " .. path:match "^(.*)/")
		scratch.write(path, (text:gsub("OTHER", other.host):gsub("HOST", server.host)))
		return path
	end
	local function pull(name, options)
		return child.pull("http://" .. server.host .. "/" .. name, { HOME = home }, options)
	end
	local function refused(code, pattern, ...) child.refused(home, code, pattern, pull(...)) end
	-- What both have heard during run().
	local function heard(run)
		local mirror
		local origin = server:heard(function() mirror = other:heard(run) end)
		return origin, mirror
	end
	check("has mirrors, which are asked first, below their prefix", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/free/hub"]}}}'
		local origin, mirror = heard(function() assert(pull "app") end)
		assert.equal("", origin)
		assert.matches("GET /v2/free/hub/app/manifests/latest ", mirror)
		assert.matches("GET /v2/free/hub/app/blobs/", mirror)
	end)

	check("goes on to the next one where a mirror has it not, or nobody listens, or it lies", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://127.0.0.1:1", "http://OTHER/absent", "http://OTHER/basic"]}}}'
		local origin, mirror = heard(function() assert(pull "app") end)
		assert.matches("GET /v2/app/blobs/", origin)
		assert.matches("GET /v2/absent/app/manifests/latest ", mirror)
		assert.matches("GET /v2/basic/app/manifests/latest ", mirror)
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/liar"]}}}'
		local digest = scratch.run "cd spec/support && python3 -Bc 'from fake_registry import *; print(digest(IMAGE))'"
		origin, mirror = heard(function() assert(pull("app@" .. digest)) end)
		assert.matches("GET /v2/liar/app/manifests/" .. digest, mirror)
		assert.matches("GET /v2/app/manifests/" .. digest, origin)
	end)

	check("goes on to the next one for a layer alone", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/no-layer"]}}}'
		local origin, mirror = heard(function() assert(pull "app") end)
		assert.not_matches("/manifests/", origin)
		local layer = origin:match "^%S+ GET /v2/app/blobs/(%S+) anonymous %-\n$"
		assert.matches("GET /v2/no%-layer/app/blobs/" .. layer, mirror)
		refused("ENOENT", layer .. ": not there, status 404; mirror 127.0.0.1:%d+: .*no%-layer/no%-layer: " .. layer,
			"no-layer")
	end)

	check("goes on to the next one for a layer that is wrong, cut or of another size", function()
		for _, how in ipairs { "wrong", "short", "long", "cut" } do
			settings('{"registries": {"HOST": {"mirrors": ["http://OTHER/absent", "http://OTHER/' .. how .. '-layer"]}}}')
			local origin, mirror = heard(function() assert(pull("app", { retries = 1 })) end)
			assert.not_matches("/manifests/", origin)
			local _, asked = mirror:gsub("GET /v2/" .. how .. "%-layer/app/blobs/", "")
			assert.equal(how == "cut" and 3 or 2, asked) -- the config is one
			assert.matches("^%S+ GET /v2/app/blobs/%S+ anonymous %-\n$", origin)
		end
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/wrong-layer"]}}}'
		refused("EBADMSG", "blob sha256:%x+: its bytes have digest", "wrong-layer")
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/wrong-layer"]}}}'
		refused("ENOENT", "sha256:%x+: not there, status 404; mirror 127.0.0.1:%d+: blob sha256:%x+: its bytes have digest",
			"no-layer")
	end)

	check("names all that were asked when none has it", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://127.0.0.1:1", "http://OTHER/absent"]}}}'
		refused("ENOENT", "registry 127.0.0.1:%d+: absent: latest: not there, status 404; mirror 127.0.0.1:1: GET http:" ..
			"//127.0.0.1:1/v2/absent/manifests/latest: .*; mirror 127.0.0.1:%d+: .* absent/absent: latest: not there", "absent")
	end)

	check("does not show a mirror the login for the registry", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER/basic"]}}}'
		local origin, mirror = heard(function() assert(pull("basic", { username = "user", password = "secret" })) end)
		assert.matches("user:secret", origin)
		assert.not_matches("user:secret", mirror)
	end)

	check("may block a registry, as a mirror too", function()
		local path = settings('{"registries": {"HOST": {"blocked": true}}}', "/named.json")
		assert(pull "free")
		refused("EPERM", 'registry 127.0.0.1:%d+ is blocked: HOME/named.json: registries%["127.0.0.1:%d+"%].blocked', "free",
			{ config = path })
		settings '{"registries": {"HOST": {"mirrors": ["http://OTHER"]}, "OTHER": {"blocked": true}}}'
		local _, mirror = heard(function() assert(pull "free") end)
		assert.equal("", mirror)
	end)

	check("allows plain http to another machine by its name alone", function()
		settings '{"registries": {"HOST": {"mirrors": ["http://192.0.2.1"]}}}'
		refused("EPERM", 'HOME/.config/supermachine/config.json: registries%["127.0.0.1:%d+"%].mirrors: plain http to ' ..
			'192.0.2.1, another machine, needs registries%["192.0.2.1"%].insecure', "free")
		-- A name that leads nowhere by the proxy: what is asked is whether it is asked.
		for insecure, code in pairs { ["true"] = "ECONNREFUSED", ["false"] = "EPERM" } do
			settings(('{"registries": {"registry.invalid": {"insecure": %s}}}'):format(insecure))
			local digest, _, got = child.pull("http://registry.invalid/a", { HOME = home, http_proxy = "http://127.0.0.1:1" })
			assert.is_nil(digest)
			assert.equal(code, got)
		end
	end)

	for _, case in ipairs {
		{ "[]", "HOME/.config/supermachine/config.json: not an object" },
		{ "{", "HOME/.config/supermachine/config.json: " },
		{ '{"mirrors": {}}', "config.json: mirrors: registries expected" },
		{ '{"registries": []}', "registries is not an object" },
		{ '{"registries": {"a.b": 1}}', 'registries%["a.b"%] is not an object' },
		{ '{"registries": {"a.b": {"mirors": []}}}', 'registries%["a.b"%].mirors: mirrors, insecure or blocked expected' },
		{ '{"registries": {"a.b": {"mirrors": "x"}}}', 'registries%["a.b"%].mirrors is not a list' },
		{ '{"registries": {"a.b": {"mirrors": ["x.y", 1]}}}', 'registries%["a.b"%].mirrors%[1%] is not a string' },
		{ '{"registries": {"a.b": {"mirrors": ["ftp://x.y"]}}}', 'registries%["a.b"%].mirrors%[0%] is not %[http' },
		{ '{"registries": {"a.b": {"mirrors": ["x.y/UP"]}}}', 'registries%["a.b"%].mirrors%[0%] is not %[http' },
		{ '{"registries": {"a.b": {"mirrors": ["u:p@x.y"]}}}', 'registries%["a.b"%].mirrors%[0%] is not %[http' },
		{ '{"registries": {"a.b": {"insecure": 1}}}', 'registries%["a.b"%].insecure is not true or false' },
		{ '{"registries": {"https://a.b": {}}}', "the name is not HOST%[:PORT%] as references have it" },
		{ '{"registries": {"a.b/c": {}}}', "the name is not HOST%[:PORT%] as references have it" },
		{ '{"registries": {"index.docker.io": {}}}', "the name is not HOST%[:PORT%] as references have it" },
	} do
		check("is refused: " .. case[1], function()
			settings(case[1])
			refused("EBADMSG", case[2], "free")
		end)
	end

	check("that is named has to be there", function()
		refused("ENOENT", "HOME/none", "free", { config = home .. "/none" })
	end)
end)
