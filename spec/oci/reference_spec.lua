local core = require "supermachine.core"

local HEX = ("0123456789abcdef"):rep(4)
local DIGEST = "sha256:" .. HEX

describe("an image reference", function()
	-- What is written, its one spelling, and parts of it.
	local good = {
		-- names, and what they leave out
		{ "nginx", "docker.io/library/nginx:latest", host = "docker.io", repository = "library/nginx", tag = "latest" },
		{ "nginx:1.27", "docker.io/library/nginx:1.27", tag = "1.27" },
		{ "tom/app", "docker.io/tom/app:latest", repository = "tom/app" },
		{ "tom/a/b/c", "docker.io/tom/a/b/c:latest", repository = "tom/a/b/c" },
		{ "library/nginx", "docker.io/library/nginx:latest" },
		{ "docker.io/nginx", "docker.io/library/nginx:latest" },
		{ "DOCKER.IO/nginx", "docker.io/library/nginx:latest" },
		{ "index.docker.io/library/nginx", "docker.io/library/nginx:latest", host = "docker.io" },
		{ "index.docker.io/nginx", "docker.io/library/nginx:latest" },
		{ "registry-1.docker.io/nginx", "registry-1.docker.io/nginx:latest", host = "registry-1.docker.io" },
		{ "docker.io:443/nginx", "docker.io:443/nginx:latest", host = "docker.io:443", repository = "nginx" },
		{ "docker://nginx", "docker.io/library/nginx:latest" },
		{ "docker://quay.io/a/b/c:x", "quay.io/a/b/c:x", host = "quay.io", repository = "a/b/c" },
		{ "0", "docker.io/library/0:latest" },
		{ "a__b/c.d-e---f:T_1.2-3", "docker.io/a__b/c.d-e---f:T_1.2-3" },
		{ "test_com/foo", "docker.io/test_com/foo:latest", host = "docker.io" },
		{ "xn--n3h.com/myimage", "xn--n3h.com/myimage:latest", host = "xn--n3h.com" },
		{ "nginx:_", "docker.io/library/nginx:_", tag = "_" },
		{ "nginx:" .. ("x"):rep(128), "docker.io/library/nginx:" .. ("x"):rep(128) },
		{ ("x"):rep(247), "docker.io/library/" .. ("x"):rep(247) .. ":latest" },
		{ "q.io/" .. ("x"):rep(255), "q.io/" .. ("x"):rep(255) .. ":latest" },
		{ HEX .. ":tag", "docker.io/library/" .. HEX .. ":tag" },
		{ HEX:sub(2), "docker.io/library/" .. HEX:sub(2) .. ":latest" },
		-- names that look like transports
		{ "oci", "docker.io/library/oci:latest" },
		{ "docker://oci:1", "docker.io/library/oci:1" },
		{ "docker://dir:1", "docker.io/library/dir:1" },
		{ "docker://docker-daemon:1", "docker.io/library/docker-daemon:1" },
		{ "docker:dind", "docker.io/library/docker:dind" },
		{ "dir/oci:1", "docker.io/dir/oci:1" },
		-- hosts
		{ "localhost/app:1", "localhost/app:1", host = "localhost" },
		{ "LocalHost/app", "localhost/app:latest", host = "localhost" },
		{ "localhost", "docker.io/library/localhost:latest" },
		{ "localhost:5000", "docker.io/library/localhost:5000" },
		{ "localhost:5000/app", "localhost:5000/app:latest", host = "localhost:5000" },
		{ "localhost:05000/app", "localhost:5000/app:latest", host = "localhost:5000" },
		{ "registry:5000/app:1", "registry:5000/app:1", host = "registry:5000" },
		{ "Registry.Example.COM/app", "registry.example.com/app:latest", host = "registry.example.com" },
		{ "Registry/app", "https://registry/app:latest", host = "registry", repository = "app" },
		{ "https://registry/app", "https://registry/app:latest", host = "registry" },
		{ "registry/app", "docker.io/registry/app:latest", host = "docker.io" },
		{ "http://registry/app", "http://registry/app:latest", plain_http = true },
		{ "https://nginx/nginx@" .. DIGEST, "https://nginx/nginx@" .. DIGEST },
		{ "127.0.0.1/a", "127.0.0.1/a:latest" },
		{ "http://127.0.0.1:80/a", "http://127.0.0.1:80/a:latest", plain_http = true },
		{ "https://example.com/a__b/c.d-e---f:T_1.2-3", "example.com/a__b/c.d-e---f:T_1.2-3", plain_http = false },
		{ "https://docker.io/nginx", "docker.io/library/nginx:latest" },
		{ "[::1]:5000/app:1", "[::1]:5000/app:1", host = "[::1]:5000" },
		{ "[::1]/app", "[::1]/app:latest", host = "[::1]" },
		{ "[2001:DB8:0:0::1]/app", "[2001:db8::1]/app:latest", host = "[2001:db8::1]" },
		{ "[0:0:0:0:0:0:0:1]:080/app", "[::1]:80/app:latest" },
		{ "[::ffff:192.0.2.1]:5000/a", "[::ffff:192.0.2.1]:5000/a:latest" },
		{ "http://[fe80::1]/a", "http://[fe80::1]/a:latest" },
		-- digests
		{ "nginx@" .. DIGEST, "docker.io/library/nginx@" .. DIGEST, digest = DIGEST },
		{ "q.io/n:1@" .. DIGEST, "q.io/n:1@" .. DIGEST, tag = "1", digest = DIGEST },
		{ "docker://[::1]:5/n:1@" .. DIGEST, "[::1]:5/n:1@" .. DIGEST },
		-- layouts, in a folder and in a tar
		{ "oci:some/dir", "oci:some/dir", kind = "layout", path = "some/dir" },
		{ "oci:/d:localhost/bb:1", "oci:/d:localhost/bb:1", path = "/d", tag = "localhost/bb:1" },
		{ "oci:/d@" .. DIGEST, "oci:/d@" .. DIGEST, path = "/d", digest = DIGEST },
		{ "oci:/d@home:1", "oci:/d@home:1", path = "/d@home", tag = "1" },
		{ "oci:/d:@2", "oci:/d:@2", path = "/d", index = 2 },
		{ "oci:/d:t@2", "oci:/d:t@2", path = "/d", tag = "t@2" },
		{ "oci:a b.d", "oci:a b.d", path = "a b.d" },
		{ "oci-archive:a.tar", "oci-archive:a.tar", kind = "oci-archive", path = "a.tar" },
		{ "oci-archive:/x/a.tar.gz:q.io/n:1", "oci-archive:/x/a.tar.gz:q.io/n:1", path = "/x/a.tar.gz", tag = "q.io/n:1" },
		{ "oci-archive:a.tar:@0", "oci-archive:a.tar:@0", path = "a.tar", index = 0 },
		{ "oci-archive:a.tar@" .. DIGEST, "oci-archive:a.tar@" .. DIGEST, path = "a.tar", digest = DIGEST },
		-- archives by docker: their names are those of a registry
		{ "docker-archive:a.tar", "docker-archive:a.tar", kind = "docker-archive", path = "a.tar" },
		{ "docker-archive:a.tar:nginx", "docker-archive:a.tar:docker.io/library/nginx:latest", path = "a.tar",
			host = "docker.io", repository = "library/nginx", tag = "latest" },
		{ "docker-archive:a.tar:localhost:5000/b/c:1", "docker-archive:a.tar:localhost:5000/b/c:1",
			host = "localhost:5000", repository = "b/c", tag = "1" },
		{ "docker-archive:a.tar:[::1]:5000/b:1", "docker-archive:a.tar:[::1]:5000/b:1", host = "[::1]:5000" },
		{ "doCker-daemon:5/x", "https://docker-daemon:5/x:latest", host = "docker-daemon:5" },
		{ "docker://oci:5000/x", "https://oci:5000/x:latest", host = "oci:5000" },
		{ "docker-archive:a.tar:T/xg", "docker-archive:a.tar:T/xg:latest", host = "T" },
		{ "docker-archive:a.tar:EXAMPLE.com/xg", "docker-archive:a.tar:example.com/xg:latest", host = "example.com" },
		{ "docker-archive:a.tar:@0", "docker-archive:a.tar:@0", index = 0 },
		{ "docker-archive:a.tar:@120", "docker-archive:a.tar:@120", index = 120 },
		-- a folder's name may be anything
		{ "dir:/a b:c@d", "dir:/a b:c@d", kind = "dir", path = "/a b:c@d" },
		{ "dir:x", "dir:x", path = "x" },
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
		{ "https://exa_mple.com/a", 12, "host name" },
		{ "a-b_c.d/e", 4, "host name" },
		{ "example.com./a", 13, "host name" },
		{ "a.com:/x", 7, "port" },
		{ "a.com:5a/x", 7, "port" },
		{ "a.com:000080/x", 7, "port" },
		{ "nginx:1.27/a", 7, "port" },
		{ ("a"):rep(280) .. ".com/x", 1, "host is too long" },
		{ "[::1]5000/a", 6, "port expected" },
		{ "[:::1]/a", 2, "not an IPv6 address" },
		{ "[]/a", 2, "not an IPv6 address" },
		{ "[1.2.3.4]/a", 2, "not an IPv6 address" },
		{ "[fe80::1%eth0]/a", 9, "%]" },
		{ "[" .. ("1:"):rep(40) .. "]/a", 2, "not an IPv6 address" },
		{ "[::1]", 1, "repository name expected" },
		{ "::1/a", 1, "host name" },
		{ "nginx@", 7, "not a digest" },
		{ "@" .. DIGEST, 1, "repository name expected" },
		{ ":tag", 1, "repository name expected" },
		{ "/nginx", 1, "repository name expected" },
		{ "-a", 1, "repository name expected" },
		{ "a___b", 4, "lower%-case letter or digit" },
		{ "a._b", 3, "lower%-case letter or digit" },
		{ " nginx", 1, "repository name expected" },
		{ "nginx ", 6, "not allowed here" },
		{ "nginx:a:b", 8, "not allowed here" },
		{ "nginx\n", 6, "not allowed here" },
		{ "ngin\u{e9}x", 5, "not allowed here" },
		{ HEX, 1, "an image's ID" },
		{ "docker://" .. HEX, 10, "an image's ID" },
		{ ("x"):rep(248), 1, "255" },
		{ "q.io/" .. ("x"):rep(256), 6, "255" },
		{ "DOCKER://a", 1, "scheme" },
		{ "docker://", 10, "repository name expected" },
		{ "docker://http://a/b", 15, "port" },
		{ "docker-daemon:nginx", 1, "transport is not supported" },
		{ "containers-storage:nginx:1", 1, "transport is not supported" },
		{ "sif:a.sif", 1, "transport is not supported" },
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
		{ "oci:dir@" .. DIGEST .. ":t", 9, "64 lower%-case hex" },
		{ "oci:dir:@", 10, "digit expected" },
		{ "oci:dir:@x", 10, "digit expected" },
		{ "oci:dir:@1x", 11, "digit expected" },
		{ "oci:" .. ("x"):rep(4096), 5, "folder name is too long" },
		{ "oci:dir:" .. ("x"):rep(256), 9, "tag is too long" },
		{ "oci-archive:", 13, "file expected" },
		{ "oci-archive::t", 13, "file expected" },
		{ "oci-archive:f:a\\b", 16, "not allowed" },
		{ "docker-archive:", 16, "file expected" },
		{ "docker-archive:f:", 18, "repository name expected" },
		{ "docker-archive:f:Nginx", 18, "upper%-case" },
		{ "docker-archive:f:nginx:", 24, "tag expected" },
		{ "docker-archive:f:nginx@" .. DIGEST, 23, "no digest" },
		{ "docker-archive:f:@-1", 19, "digit expected" },
		{ "docker-archive:f:@01", 19, "leading zero" },
		{ "docker-archive:f:@1000000", 19, "too large" },
		{ "docker-archive:" .. ("x"):rep(4096), 16, "file name is too long" },
		{ "dir:", 5, "folder expected" },
		{ "dir:" .. ("x"):rep(4096), 5, "folder name is too long" },
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

	it("shows no password that does not belong there", function()
		for _, text in ipairs { "https://tom:secret@example.com/a", "docker://tom:secret@example.com:5000/a:1" } do
			local operation <close> = assert(core.image_pull_begin(text, { store = "/nowhere" }))
			local _, message, code = operation:finish()
			assert.equal("EINVAL", code)
			assert.matches("^pull: reference: column %d+: user names and passwords", message)
			assert.not_matches("secret", message)
		end
	end)

	it("raises for what is no string", function()
		assert.has_error(function() core.image_reference_parse {} end)
		assert.has_error(function() core.image_reference_parse "a\0b" end)
	end)
end)
