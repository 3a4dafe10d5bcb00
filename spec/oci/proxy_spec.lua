-- The way to registries on other machines: the proxies that the environment names.
local child = require "spec.support.pull"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "openssl", "python3")

-- These names lead nowhere but by the proxy, and there to loopback.
local NAME <const> = "registry.invalid"

describe("a proxy", function()
	local folder, home, secure, plain, certificate, to_secure, to_plain

	setup(function()
		if missing then return end
		folder = scratch.folder()
		certificate = registry.certificate(folder, "DNS:localhost,DNS:" .. NAME)
		secure = registry.start_fake("auth_registry.py", certificate.certificate .. " " .. certificate.key)
		plain = registry.start_fake "auth_registry.py"
		to_secure = registry.start_fake("proxy.py", secure.port)
		to_plain = registry.start_fake("proxy.py", plain.port)
	end)
	teardown(function()
		for _, server in pairs { secure, plain, to_secure, to_plain } do server:stop() end
		if folder then scratch.remove(folder) end
	end)
	before_each(function() home = not missing and child.home() or nil end)
	after_each(function() if home then scratch.remove(home) end end)

	local function pull(name, env, options)
		env.HOME = home
		options = options or {}
		options.ca_file, options.retries = certificate.certificate, options.retries or 0
		local digest, message, code = child.pull(name, env, options)
		assert.not_matches("secret", message or "")
		return digest, message, code
	end
	local function refused(code, pattern, ...) child.refused(home, code, pattern, pull(...)) end
	local function url(server, login) return ("http://%s%s"):format(login or "", server.host) end

	check("carries https in a tunnel, and never sees the registry's login", function()
		for _, variable in ipairs { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY" } do
			local log = to_secure:heard(function()
				assert(pull(NAME .. "/basic/" .. variable:lower(), { [variable] = url(to_secure), http_proxy = url(to_plain) },
					{ username = "user", password = "secret" }))
			end)
			assert.matches("^CONNECT registry.invalid:443 %- %-\n", log)
			for line in log:gmatch "[^\n]+" do assert.matches("^CONNECT %S+ %- %-$", line) end
		end
		assert.matches("registry.invalid GET /v2/basic/%S+ user:secret", secure:log())
	end)

	check("carries plain http by whole URLs", function()
		for _, variable in ipairs { "http_proxy", "all_proxy", "ALL_PROXY" } do
			local log = to_plain:heard(function()
				assert(pull("http://" .. NAME .. "/free", { [variable] = url(to_plain) }, { insecure = true }))
			end)
			assert.matches("^GET http://registry.invalid/v2/free/manifests/latest %- %-\n", log)
		end
	end)

	-- A server's own variable HTTP_PROXY may be a request's header "Proxy".
	check("is not what HTTP_PROXY names", function()
		local log = to_plain:heard(function()
			refused("EHOSTUNREACH", NAME, "http://" .. NAME .. "/free", { HTTP_PROXY = url(to_plain) }, { insecure = true })
		end)
		assert.equal("", log)
	end)

	check("gets its own login, and says nothing of it", function()
		local log = to_secure:heard(function()
			assert(pull(NAME .. "/free", { https_proxy = url(to_secure, "me:secret@") }))
		end)
		assert.matches("^CONNECT registry.invalid:443 me:secret %-\n", log)
	end)

	check("is not used for what no_proxy names", function()
		for variable, value in pairs { no_proxy = NAME, NO_PROXY = "other,.invalid" } do
			local log = to_secure:heard(function()
				refused("EHOSTUNREACH", NAME, NAME .. "/free", { https_proxy = url(to_secure), [variable] = value })
			end)
			assert.equal("", log)
		end
	end)

	check("is not used for this machine", function()
		local log = to_plain:heard(function()
			assert(pull("http://" .. plain.host .. "/free", { http_proxy = url(to_plain), all_proxy = url(to_plain) }))
		end)
		assert.equal("", log)
	end)

	check("that refuses is named, and is not asked again in vain", function()
		local login = "me:secret@"
		local function says(server, status)
			return ("the proxy %s refuses: status %d"):format((server.host:gsub("%p", "%%%0")), status)
		end
		for status, code in pairs { [403] = "EACCES", [407] = "EACCES", [404] = "EIO" } do
			local refusing <close> = registry.start_fake("proxy.py", ("1 %d"):format(status))
			refused(code, NAME .. "/v2/free/manifests/latest: " .. says(refusing, status), NAME .. "/free",
				{ https_proxy = url(refusing, login) }, { retries = 5 })
			assert.equal("CONNECT registry.invalid:443 me:secret -\n", refusing:log():match "\n(.*)$")
		end
		local refusing <close> = registry.start_fake("proxy.py", "1 407")
		refused("EACCES", says(refusing, 407), "http://" .. NAME .. "/free", { http_proxy = url(refusing, login) },
			{ insecure = true })
	end)

	check("that is not there is named", function()
		refused("ECONNREFUSED", "127.0.0.1 port 1 ", NAME .. "/free", { https_proxy = "http://me:secret@127.0.0.1:1" })
		refused("EHOSTUNREACH", "proxy.invalid", NAME .. "/free", { https_proxy = "http://me:secret@proxy.invalid:1" })
	end)

	check("that is no URL of one is named by the variable", function()
		for _, value in ipairs { "http://me:secret@127.0.0.1:99999", "gopher://me:secret@127.0.0.1:1" } do
			refused("EINVAL", "what $https_proxy says is no URL of a proxy", NAME .. "/free", { https_proxy = value })
			refused("EINVAL", "what $ALL_PROXY says is no URL of a proxy", NAME .. "/free", { ALL_PROXY = value })
		end
	end)
end)
