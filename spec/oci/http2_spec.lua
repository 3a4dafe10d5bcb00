-- Many blobs over one connection: docker-registry behind nginx, which offers HTTP/2.
local core = require "supermachine.core"
local layout = require "spec.support.oci_layout"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local LAYERS <const> = 8

local nginx = scratch.has "nginx" and "nginx" or "/usr/sbin/nginx"
local check, missing = needs(it, pending, "docker-registry", "skopeo", "openssl", "python3", nginx)

describe("a registry behind nginx", function()
	local server, folder, image, certificate

	setup(function()
		if missing then return end
		folder = scratch.folder()
		certificate = registry.certificate(folder, "IP:127.0.0.1")
		server = registry.start()
		local images, layers = layout.new(folder .. "/images"), {}
		for i = 1, LAYERS do layers[i] = (("layer %d "):format(i)):rep(100000) end
		image = images:image { layers = layers }
		images:tag(image, "t")
		server:push("oci:" .. images.path .. ":t", "app:t", "--preserve-digests")
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)

	-- How many blobs came over each connection, by its number, and all protocols that were spoken.
	local function pull(protocol)
		local front <close> = registry.start_fake("nginx.py", ("%s %s %s %s %s"):format(folder, certificate.certificate,
			certificate.key, server.host, protocol))
		local operation <close> = assert(core.image_pull_begin(front.host .. "/app:t", { platform = "amd64",
			store = folder .. "/store" .. protocol, ca_file = certificate.certificate, parallel = 4 }))
		local pulled <close> = assert(operation:finish())
		assert.equal(image.digest, pulled:digest())
		local blobs, protocols, connections = 0, {}, {}
		for spoken, connection, path in front:log():gmatch "(HTTP/%S+) (%d+) GET (%S+)" do
			protocols[spoken] = true
			connections[connection] = true
			if path:find "/blobs/" then blobs = blobs + 1 end
		end
		assert.equal(LAYERS + 1, blobs)
		local count = 0
		for _ in pairs(connections) do count = count + 1 end
		return protocols, count
	end

	check("is asked for everything over one connection where it offers HTTP/2", function()
		local protocols, connections = pull "http2"
		assert.same({ ["HTTP/2.0"] = true }, protocols)
		assert.equal(1, connections)
	end)

	check("is asked over several connections, each used again, where it does not", function()
		local protocols, connections = pull ""
		assert.same({ ["HTTP/1.1"] = true }, protocols)
		assert.is_true(connections > 1 and connections <= 4, connections)
	end)
end)
