local core = require "supermachine.core"

local HEX = ("0123456789abcdef"):rep(4)
local DIGEST = "sha256:" .. HEX

describe("an image reference", function()
	local good = {
		{ "nginx", "docker.io/library/nginx:latest", host = "docker.io", repository = "library/nginx", tag = "latest" },
		{ "nginx:1.27", "docker.io/library/nginx:1.27", tag = "1.27" },
		{ "tom/app", "docker.io/tom/app:latest", repository = "tom/app" },
		{ "docker.io/nginx", "docker.io/library/nginx:latest" },
		{ "index.docker.io/library/nginx", "docker.io/library/nginx:latest", host = "docker.io" },
		{ "docker://quay.io/a/b/c:x", "quay.io/a/b/c:x", host = "quay.io", repository = "a/b/c" },
		{ "localhost/app:1", "localhost/app:1", host = "localhost" },
		{ "localhost:5000/app", "localhost:5000/app:latest", host = "localhost:5000" },
		{ "Registry.Example.COM/app", "registry.example.com/app:latest", host = "registry.example.com" },
		{ "[::1]:5000/app:1", "[::1]:5000/app:1", host = "[::1]:5000" },
		{ "http://127.0.0.1:80/a", "http://127.0.0.1:80/a:latest", plain_http = true },
		{ "https://example.com/a__b/c.d-e---f:T_1.2-3", "example.com/a__b/c.d-e---f:T_1.2-3", plain_http = false },
		{ "nginx@" .. DIGEST, "docker.io/library/nginx@" .. DIGEST, digest = DIGEST },
		{ "q.io/n:1@" .. DIGEST, "q.io/n:1@" .. DIGEST, tag = "1", digest = DIGEST },
		{ "oci:some/dir", "oci:some/dir", kind = "layout", path = "some/dir" },
		{ "oci:/d:localhost/bb:1", "oci:/d:localhost/bb:1", path = "/d", tag = "localhost/bb:1" },
		{ "oci:/d@" .. DIGEST, "oci:/d@" .. DIGEST, path = "/d", digest = DIGEST },
	}
	for _, case in ipairs(good) do
		it("understands " .. case[1], function()
			local reference = assert(core.image_reference_parse(case[1]))
			assert.equal(case[2], reference.text)
			for key, value in pairs(case) do
				if type(key) == "string" then assert.equal(value, reference[key], key) end
			end
			-- The one spelling means the same again.
			assert.same(reference, core.image_reference_parse(reference.text))
		end)
	end

	local bad = {
		{ "", 1, "empty" },
		{ "Nginx", 1, "upper%-case" },
		{ "tom/App", 5, "upper%-case" },
		{ "nginx:", 7, "tag expected" },
		{ "nginx:-x", 7, "tag expected" },
		{ "nginx:a b", 8, "not allowed" },
		{ "nginx:" .. ("x"):rep(129), 7, "128" },
		{ "a..b", 3, "lower%-case letter or digit" },
		{ "a/", 3, "repository name expected" },
		{ "a//b", 3, "repository name expected" },
		{ "a_", 3, "lower%-case letter or digit" },
		{ "../x", 1, "host name" },
		{ ("x"):rep(256), 1, "255" },
		{ "ftp://a/b", 1, "scheme" },
		{ "http://", 8, "host expected" },
		{ "http://example.com", 19, "repository name expected" },
		{ "https://tom:secret@example.com/a", 9, "passwords" },
		{ "https://example.com:0/a", 21, "port" },
		{ "https://example.com:70000/a", 21, "port" },
		{ "https://exa mple.com/a", 12, "host name" },
		{ "https://-a.com/a", 9, "host name" },
		{ "https://a..b/a", 11, "host name" },
		{ "https://[::1/a", 13, "%]" },
		{ "nginx@sha256:12", 7, "64 lower%-case hex" },
		{ "nginx@sha256:" .. HEX .. "0", 7, "64 lower%-case hex" },
		{ "nginx@sha256:" .. HEX:upper(), 7, "64 lower%-case hex" },
		{ "nginx@sha512:" .. HEX .. HEX, 7, "sha512 is not supported" },
		{ "nginx@" .. DIGEST .. ":tag", 7, "64 lower%-case hex" },
		{ "oci:", 5, "folder expected" },
		{ "oci::tag", 5, "folder expected" },
		{ "oci:dir:", 9, "tag expected" },
		{ "oci:dir:a b", 10, "not allowed" },
		{ "oci:dir@sha256:12", 9, "64 lower%-case hex" },
	}
	for _, case in ipairs(bad) do
		it(("refuses '%.60s' at its column"):format(case[1]), function()
			local reference, message, code = core.image_reference_parse(case[1])
			assert.is_nil(reference)
			assert.equal("EINVAL", code)
			assert.matches(("column %d: "):format(case[2]), message)
			assert.matches(case[3], message)
		end)
	end

	it("raises for what is no string", function()
		assert.has_error(function() core.image_reference_parse {} end)
		assert.has_error(function() core.image_reference_parse "a\0b" end)
	end)
end)
