-- Whom we trust over TLS, and to whom we show a certificate of our own: the certs.d folders.
local certificates = require "spec.support.certificates"
local child = require "spec.support.pull"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "openssl", "python3")

describe("certs.d", function()
	local folder, server, home

	setup(function()
		if missing then return end
		folder = scratch.folder()
		certificates.authority(folder, "ca")
		certificates.authority(folder, "other")
		for _, who in ipairs { "server", "client" } do certificates.sign(folder, "ca", who) end
		server = registry.start_fake("auth_registry.py", ("%s/server.crt %s/server.key %s/ca"):format(folder, folder, folder))
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)
	before_each(function() home = not missing and child.home() or nil end)
	after_each(function() if home then scratch.remove(home) end end)

	-- Copies a file of the setup's to HOST's folder.
	local function place(host, source, name)
		local target = ("%s/.config/containers/certs.d/%s"):format(home, host)
		scratch.run(("mkdir -p %s && cp %s/%s %s/%s"):format(target, folder, source, target, name))
	end
	local function pull(name, options)
		return child.pull(server.host .. "/" .. name, { HOME = home }, options)
	end
	local function heard(run) return server:heard(run) end
	local function refused(code, pattern, ...) child.refused(home, code, pattern, pull(...)) end
	local localhost = function() return "localhost:" .. server.port end

	check("names authorities for one host and port", function()
		refused("EPROTO", "certificate", "free")
		for _, host in ipairs { "127.0.0.1", "127.0.0.1:1", localhost() } do place(host, "ca", "a.crt") end
		refused("EPROTO", "certificate", "free")
		place(server.host, "other", "a.crt")
		refused("EPROTO", "certificate", "free")
		place(server.host, "ca", "b.crt")
		assert(pull "free")
	end)

	check("gives way to ca_file", function()
		place(server.host, "ca", "a.crt")
		refused("EPROTO", "certificate", "free", { ca_file = folder .. "/other" })
		assert(pull("free", { ca_file = folder .. "/ca" }))
	end)

	check("has a client certificate for that host, which a redirect does not take along", function()
		place(server.host, "ca", "a.crt")
		assert.not_matches("client", heard(function() assert(pull "free") end))
		place(server.host, "client.crt", "me.cert")
		place(server.host, "client.key", "me.key")
		local log = heard(function() assert(pull "redirected") end)
		assert.matches("GET /v2/redirected/manifests/latest anonymous client\n", log)
		assert.matches("localhost:%d+ GET /elsewhere%S+ anonymous %-\n", log)
		place(localhost(), "client.crt", "me.cert")
		place(localhost(), "client.key", "me.key")
		log = heard(function() assert(pull "redirected") end)
		assert.matches("localhost:%d+ GET /elsewhere%S+ anonymous client\n", log)
	end)

	check("is of no use where a redirect leaves TLS", function()
		place(server.host, "ca", "a.crt")
		refused("EPROTONOSUPPORT",
			"GET https://%S+: redirected to http://127.0.0.1:%d+/elsewhere: the protocol is not https", "to-http")
		refused("EPROTONOSUPPORT", "the protocol is not https", "to-http", { insecure = true })
	end)

	check("is refused with halves and rubbish in it, by the file's name", function()
		place(server.host, "client.crt", "me.cert")
		refused("ENOENT", "HOME/.config/containers/certs.d/%S+/me.key, which belongs to HOME/%S+/me.cert: No such file",
			"free")
		place(server.host, "client.key", "you.key")
		place(server.host, "client.key", "me.key")
		refused("ENOENT", "you.cert, which belongs to HOME/%S+/you.key", "free")
		place(server.host, "client.crt", "you.cert")
		place(server.host, "client.names", "bad.crt")
		refused("EBADMSG", "HOME/%S+/bad.crt: not a list of certificates in PEM", "free")
	end)
end)
