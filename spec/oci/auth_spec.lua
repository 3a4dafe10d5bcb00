-- Who we are to a registry: files of credentials, helpers, challenges and tokens, and who must not learn of them.
local core = require "supermachine.core"
local build = require "spec.support.build"
local child = require "spec.support.pull"
local layout = require "spec.support.oci_layout"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"

local check, missing = needs(it, pending, "docker-registry", "skopeo", "openssl", "python3", "perl")

local function base64(text)
	return (scratch.run("printf %s " .. scratch.quote(text) .. " | openssl base64 -A"))
end

-- auths of a file: key -> "name:password"
local function auths(entries)
	local list = {}
	for key, login in pairs(entries) do list[#list + 1] = ('"%s": {"auth": "%s"}'):format(key, base64(login)) end
	return ('{"auths": {%s}}'):format(table.concat(list, ", "))
end

local home
local function place(name, text)
	local path = home .. "/" .. name
	scratch.run("mkdir -p " .. scratch.quote(path:match "^(.*)/"))
	scratch.write(path, text)
	return path
end
-- A program in $HOME/bin.
local function helper(name, body)
	local path = place("bin/docker-credential-" .. name, "#!/bin/sh\n" .. body .. "\n")
	scratch.run("chmod +x " .. scratch.quote(path))
end
local function pull(reference, options, env)
	local all = { HOME = home, PATH = home .. "/bin:" .. os.getenv "PATH", XDG_RUNTIME_DIR = home .. "/run" }
	for key, value in pairs(env or {}) do all[key] = value end
	local digest, message, code = child.pull(reference, all, options)
	assert.not_matches("secret", message or "")
	return digest, message, code
end
local function refused(code, pattern, ...) child.refused(home, code, pattern, pull(...)) end
local function fresh_home()
	if not missing then home = child.home() end
end
local function no_home()
	if home then scratch.remove(home) end
	home = nil
end

describe("a challenge", function()
	local server
	setup(function() if not missing then server = registry.start_fake "auth_registry.py" end end)
	teardown(function() if server then server:stop() end end)
	before_each(fresh_home)
	after_each(no_home)

	local function name(repository) return "http://" .. server.host .. "/" .. repository end
	local function heard(run) return server:heard(run) end
	local user = { username = "user", password = "secret" }

	check("for Basic is answered with name and password, once they are asked for", function()
		local log = heard(function() assert(pull(name "basic", user)) end)
		local _, anonymous = log:gsub("GET /v2/basic/%S+ anonymous", "")
		assert.equal(1, anonymous)
		assert.matches("GET /v2/basic/blobs/%S+ user:secret", log)
	end)

	check("without a login is a login that is needed", function()
		refused("EACCES", "registry 127.0.0.1:%d+: basic: latest: a login is needed, status 401", name "basic")
	end)

	check("answered wrongly is a login that is refused, and says whose", function()
		refused("EACCES", "the login from option 'username' is refused, status 401", name "basic",
			{ username = "user", password = "secretly" })
		refused("EACCES", "the login from option 'username' is refused: the token server answered 401", name "token",
			{ username = "user", password = "secretly" })
		place(".docker/config.json", auths { [server.host] = "user:secretly" })
		refused("EACCES", "the login from HOME/%.docker/config%.json is refused, status 401", name "basic")
	end)

	check("for a token is answered by the token server, to which alone name and password go", function()
		local log = heard(function() assert(pull(name "token", user)) end)
		local _, tokens = log:gsub("GET /token/token%?service=a%%20service&scope=repository%%3Atoken%%3Apull&account=user " ..
			"user:secret", "")
		assert.equal(1, tokens)
		local _, all = log:gsub("user:secret", "")
		assert.equal(1, all)
	end)

	check("is found among others, with odd spacing", function()
		assert(pull(name "several", user))
	end)

	check("may ask for another scope each time; each is asked for once", function()
		local log = heard(function() assert(pull(name "scopes")) end)
		local _, first = log:gsub("GET /token/scoped%?service=a%%20service&scope=first anonymous", "")
		local _, second = log:gsub("GET /token/scoped%?service=a%%20service&scope=second anonymous", "")
		assert.same({ 1, 1 }, { first, second })
	end)

	check("is answered by an identity token, which the reply may replace", function()
		place(".docker/config.json", ('{"auths": {"%s": {"auth": "%s", "identitytoken": "id/1+"}}}'):format(server.host,
			base64 "<token>:"))
		local log = heard(function() assert(pull(name "identity")) end)
		assert.matches('form {"client_id": "supermachine", "grant_type": "refresh_token", "refresh_token": "id/1%+", ' ..
			'"scope": "repository:identity:pull", "service": "a service"}', log)
		place(".docker/config.json", ('{"auths": {"%s": {"identitytoken": "id/3+"}}}'):format(server.host))
		refused("EACCES", "the login from .* is refused: the token server answered 401", name "identity")
	end)

	check("for a token is answered by the one that a file has for the registry itself, and by no other then", function()
		place(".docker/config.json", ('{"auths": {"%s": {"registrytoken": "t-token"}}}'):format(server.host))
		local log = heard(function() assert(pull(name "token")) end)
		assert.not_matches("/token/token", log)
		assert.matches("GET /v2/token/%S+ Bearer t%-token", log)
		place(".docker/config.json", ('{"auths": {"%s": {"registrytoken": "t-secret"}}}'):format(server.host))
		log = heard(function()
			refused("EACCES", "the login from HOME/.docker/config.json is refused, status 401", name "token")
		end)
		assert.not_matches("/token/token", log)
	end)

	check("may name another host's token server, by the specification's own flow", function()
		local log = heard(function() assert(pull(name "other-realm", user)) end)
		assert.matches("localhost:%d+ GET /token/token%S+ user:secret", log)
	end)

	check("leads to nobody else: a redirect of blobs or tokens takes no login along", function()
		for _, repository in ipairs { "basic", "token" } do
			local log = heard(function() assert(pull(name(repository), user)) end)
			assert.matches("localhost:%d+ GET /elsewhere%S+ anonymous", log)
			assert.not_matches("/elsewhere%S+ [^a]", log)
		end
		local log = heard(function() assert(pull(name "moved", user)) end)
		assert.matches("127.0.0.1:%d+ GET /token/moved%S+ user:secret", log)
		assert.matches("localhost:%d+ GET /token/anonymous anonymous", log)
	end)

	check("of the host we were redirected to is not answered", function()
		local log = heard(function() refused("EACCES", "a login is needed", name "stolen", user) end)
		assert.matches("GET /steal anonymous", log)
		assert.not_matches("user:secret", log)
		assert.not_matches("/token", log)
	end)

	for _, case in ipairs {
		{ "reply/array", "EBADMSG", "token reply: 'token' is missing" },
		{ "reply/none", "EBADMSG", "token reply: 'token' is missing" },
		{ "reply/number", "EBADMSG", "token reply: 'token' is not a string" },
		{ "reply/lines", "EBADMSG", "not printable" },
		{ "reply/large", "EFBIG", "too long" },
		{ "reply/html", "EBADMSG", "token reply: not JSON" },
		{ "no-realm", "EPROTO", "names no place" },
		{ "file-realm", "EPROTO", "file:///etc/passwd, which is not https" },
		{ "never", "EACCES", "a login is needed, status 401" },
		{ "long", "EPROTO", "in more words than are taken" },
		{ "longer", "EPROTO", "in more words than are taken" },
		{ "megabyte", nil, "GET http://127.0.0.1:%d+/v2/megabyte/manifests/latest: " },
	} do
		check("is refused: " .. case[1], function()
			local digest, message, code = pull(name(case[1]))
			assert.is_nil(digest)
			assert.matches(case[3], message)
			if case[2] then assert.equal(case[2], code) end
		end)
	end

	check("is not refused by a token server that is out of order", function()
		refused("EIO", "out%-of%-order: the token server answered 500", name "reply/out-of-order", { retries = 0 })
	end)

	check("is not answered by half a login, nor by a name with a colon", function()
		for _, options in ipairs { { username = "u" }, { password = "p" }, { username = "a:b", password = "p" } } do
			assert.has_error(function() core.image_pull_begin(name "basic", options) end)
		end
		place(".docker/config.json", ('{"auths": {"%s": {"username": "a:b", "password": "secret"}}}'):format(server.host))
		refused("EINVAL", "the user name from .* has a colon in it", name "basic")
	end)

	describe("is answered from files:", function()
		local wrong = "user:not this one, a secret"

		check("the first that knows the registry counts", function()
			local host = server.host
			local good, bad = auths { [host] = "user:secret" }, auths { [host] = wrong }
			local order = { "docker/config.json", ".config/containers/auth.json", "run/containers/auth.json" }
			for i, file in ipairs(order) do
				place(file, good)
				assert(pull(name "basic", nil, { DOCKER_CONFIG = home .. "/docker" }))
				place(file, bad)
				if order[i + 1] then refused("EACCES", "the login from HOME/.* is refused", name "basic", nil,
					{ DOCKER_CONFIG = home .. "/docker" }) end
			end
			place("named.json", good)
			assert(pull(name "basic", nil, { REGISTRY_AUTH_FILE = home .. "/named.json" }))
			place("named.json", "{}")
			place("run/containers/auth.json", good)
			refused("EACCES", "a login is needed", name "basic", nil, { REGISTRY_AUTH_FILE = home .. "/named.json" })
			refused("ENOENT", "'HOME/absent', which $REGISTRY_AUTH_FILE names", name "basic", nil,
				{ REGISTRY_AUTH_FILE = home .. "/absent" })
		end)

		check("what $DOCKER_AUTH_CONFIG says comes before them, but not before the file that is named", function()
			local good, bad = auths { [server.host] = "user:secret" }, auths { [server.host] = wrong }
			place("run/containers/auth.json", bad)
			assert(pull(name "basic", nil, { DOCKER_AUTH_CONFIG = good }))
			refused("EACCES", "the login from %$DOCKER_AUTH_CONFIG is refused", name "basic", nil, { DOCKER_AUTH_CONFIG = bad })
			place("run/containers/auth.json", good)
			for _, text in ipairs { "", "{}", auths { ["other.example"] = wrong } } do
				assert(pull(name "basic", nil, { DOCKER_AUTH_CONFIG = text }))
			end
			refused("EBADMSG", "%$DOCKER_AUTH_CONFIG: not JSON", name "basic", nil, { DOCKER_AUTH_CONFIG = "secret" })
			place("named.json", good)
			assert(pull(name "basic", nil, { DOCKER_AUTH_CONFIG = bad, REGISTRY_AUTH_FILE = home .. "/named.json" }))
		end)

		check("the most specific key of a file counts", function()
			local host = server.host
			place("run/containers/auth.json", auths { [host] = wrong, [host .. "/basic"] = wrong,
				[host .. "/basic/a"] = "user:secret", [host .. "/basic/a/other"] = wrong })
			assert(pull(name "basic/a/b"))
			assert(pull(name "basic/a"))
			refused("EACCES", "is refused", name "basic/b")
		end)

		check("a key may be a URL, a password have colons and padding", function()
			place(".docker/config.json", auths { ["http://" .. server.host .. "/v1/"] = "user:secret" })
			assert(pull(name "basic"))
			place(".docker/config.json", ('{"auths": {"%s": {"auth": "%s"}}}'):format(server.host,
				scratch.run "printf 'user:secret\\000\\000' | openssl base64 -A"))
			assert(pull(name "basic"))
			place(".docker/config.json", auths { [server.host] = "user:secret:more" })
			refused("EACCES", "is refused", name "basic")
		end)

		check("an entry without a login, an empty file and none are passed over", function()
			place("run/containers/auth.json", ('{"auths": {"%s": {}}}'):format(server.host))
			place(".config/containers/auth.json", "")
			refused("EACCES", "a login is needed", name "basic")
			place(".docker/config.json", auths { [server.host] = "user:secret" })
			assert(pull(name "basic"))
		end)

		check("nothing is read before a registry asks", function()
			place("run/containers/auth.json", "broken")
			assert(pull(name "free"))
			refused("EBADMSG", "HOME/run/containers/auth.json: not JSON", name "basic")
		end)

		for _, case in ipairs {
			{ '[]', "not an object" },
			{ '{"auths": 1}', "'auths' is not an object" },
			{ '{"auths": {"HOST": 1}}', 'auths%["127.0.0.1:%d+"%] is not an object' },
			{ '{"auths": {"HOST": {"auth": 1}}}', 'auths%["127.0.0.1:%d+"%]: \'auth\' is not a string' },
			{ '{"auths": {"HOST": {"auth": "c2VjcmV0"}}}', 'auths%["127.0.0.1:%d+"%]: \'auth\' is not base64 of NAME:PASSWORD' },
			{ '{"auths": {"HOST": {"auth": "c2Vj!mV0"}}}', 'auths%["127.0.0.1:%d+"%]: \'auth\' is not base64 of NAME:PASSWORD' },
			{ '{"credHelpers": {"HOST": 1}}', 'credHelpers%["127.0.0.1:%d+"%] is not a string' },
			{ '{"credsStore": {}}', "'credsStore' is not a string" },
		} do
			check("refused: " .. case[1], function()
				place(".docker/config.json", (case[1]:gsub("HOST", server.host)))
				refused("EBADMSG", "HOME/.docker/config.json: " .. case[2], name "basic")
			end)
		end
	end)

	describe("is answered by a helper:", function()
		local function config(text) place(".docker/config.json", (text:gsub("HOST", server.host))) end
		local for_host = '{"credHelpers": {"HOST": "x"}, "credsStore": "none", "auths": {"HOST": {"auth": "eDp5"}}}'
		local says = [[read -r host; echo "$1 $host" >>"$HOME/calls"; echo '{"Username": "user", "Secret": "secret"}']]

		check("one that is for the host", function()
			helper("x", says)
			config(for_host)
			assert(pull(name "basic"))
			assert.equal("get " .. server.host .. "\n", scratch.read(home .. "/calls"))
		end)

		check("one for all hosts", function()
			helper("store", says)
			config '{"credsStore": "store"}'
			assert(pull(name "token"))
		end)

		check("with an identity token", function()
			helper("x", [[echo '{"ServerURL": "x", "Username": "<token>", "Secret": "id/1+"}']])
			config(for_host)
			assert(pull(name "identity"))
		end)

		check("which may not know it; then auths do", function()
			helper("x", "echo credentials not found in native keychain; exit 1")
			config(('{"credHelpers": {"HOST": "x"}, "auths": {"HOST": {"auth": "%s"}}}'):format(base64 "user:secret"))
			assert(pull(name "basic"))
			config '{"credHelpers": {"HOST": "x"}}'
			refused("EACCES", "a login is needed", name "basic")
		end)

		local signals = [[grep '^SigBlk' /proc/self/status >"$HOME/signals"; ls /proc/self/fd >"$HOME/fds"; ]]
		check("which starts as a shell would start it", function()
			helper("x", signals .. says)
			config(for_host)
			assert(pull(name "basic"))
			assert.equal("SigBlk:\t0000000000000000\n", scratch.read(home .. "/signals"))
			assert.equal("0\n1\n2\n3\n", scratch.read(home .. "/fds")) -- 3 is ls's own
		end)

		for _, case in ipairs {
			{ "garbage", "echo secret garbage", "EBADMSG", "docker%-credential%-x: not JSON" },
			{ "a list", "echo '[]'", "EBADMSG", "docker%-credential%-x: 'Username' is missing" },
			{ "half", [[echo '{"Username": "user"}']], "EBADMSG", "docker%-credential%-x: 'Secret' is missing" },
			{ "nothing", "true", "EBADMSG", "docker%-credential%-x: " },
			{ "failure", "echo a secret; exit 1", "ECHILD", "docker%-credential%-x: failed %(" },
			{ "death", "kill -9 $$", "ECHILD", "docker%-credential%-x: failed %(" },
			{ "no end", "yes secret", "EFBIG", "docker%-credential%-x: says more than 65536 bytes" },
		} do
			check("which gives " .. case[1], function()
				helper("x", case[2])
				config(for_host)
				refused(case[3], "HOME/.docker/config.json: credential helper " .. case[4], name "basic")
			end)
		end

		check("which is not there, or no name of one", function()
			config '{"credHelpers": {"HOST": "absent"}}'
			refused("ENOENT", "config.json: credential helper docker%-credential%-absent: No such file", name "basic")
			for _, word in ipairs { "../x", "x y", "/bin/sh" } do
				config(('{"credHelpers": {"HOST": "%s"}}'):format(word))
				refused("EINVAL", "config.json: '" .. word .. "' is no name of a credential helper", name "basic")
			end
		end)
	end)
end)

describe("a credential helper of a process that ignores SIGCHLD", function()
	before_each(fresh_home)
	after_each(no_home)
	local function run(body)
		helper("x", body)
		return scratch.run(([[PATH=%s/bin:$PATH HOME=%s python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' %s/spec/oci/credential_helper x 60000]]):format(home, home, build.dir))
	end

	check("is judged by its words", function()
		assert.equal("1 {}\n", run "echo {}; exec >&-; sleep 0.1")
		assert.equal("1 {}\n", run "echo {}")
		assert.equal("0", run "echo credentials not found in native keychain; exit 1":match "^%d")
	end)
end)

describe("a credential helper that hangs", function()
	before_each(fresh_home)
	after_each(no_home)
	-- Prints what became of it, and then its processes that are left.
	local function run(arguments)
		helper("hangs", 'echo $$ >"$HOME/pid"; sleep 1000 & [ ! -p "$HOME/told" ] || echo >"$HOME/told"; sleep 1000')
		local output = scratch.run(("PATH=%s/bin:$PATH HOME=%s %s/spec/oci/credential_helper %s"):format(home, home,
			build.dir, arguments))
		local group = scratch.read(home .. "/pid"):match "%d+"
		-- Its children are init's to wait for, and may be so still.
		assert.equal("", scratch.run(("ps -eo pgid=,stat=,args= | grep '^ *%s  *[^Z]' || true"):format(group)))
		return output
	end

	check("is ended with all that it has started when its time is over", function()
		assert.equal("ETIMEDOUT credential helper docker-credential-hangs: Connection timed out", run "hangs 1000")
	end)

	check("is ended when the pull is cancelled", function()
		assert.equal("ECANCELED credential helper docker-credential-hangs: Operation canceled", run "hangs 60000 cancel")
	end)
end)

describe("docker-registry", function()
	local folder, images, image
	setup(function()
		if missing then return end
		folder = scratch.folder()
		images = layout.new(folder .. "/images")
		image = images:image()
		images:tag(image, "t")
	end)
	teardown(function() if folder then scratch.remove(folder) end end)
	before_each(fresh_home)
	after_each(no_home)

	local function filled(auth)
		local server = registry.start { auth = auth }
		server:push("oci:" .. images.path .. ":t", "some/app:t", "--preserve-digests --dest-creds user:secret")
		return server
	end

	check("with htpasswd wants name and password", function()
		local server = filled(registry.htpasswd(folder))
		finally(function() server:stop() end)
		local name = "http://" .. server.host .. "/some/app:t"
		assert.equal(image.digest, pull(name, { username = "user", password = "secret" }))
		place("run/containers/auth.json", auths { [server.host .. "/some"] = "user:secret" })
		assert.equal(image.digest, pull(name))
		refused("EACCES", "the login from option 'username' is refused, status 401 %(UNAUTHORIZED", name,
			{ username = "user", password = "wrong" })
	end)

	check("with a token server wants tokens, by password or identity token, one a pull", function()
		local auth, issuer = registry.tokens(folder)
		local server = filled(auth)
		finally(function() server:stop() issuer:stop() end)
		local name = "http://" .. server.host .. "/some/app:t"
		local function grants(options)
			return issuer:heard(function() assert.equal(image.digest, (pull(name, options))) end)
		end
		assert.equal("GET repository:some/app:pull granted\n", grants { username = "user", password = "secret" })
		place(".docker/config.json", ('{"auths": {"%s": {"identitytoken": "identity"}}}'):format(server.host))
		assert.equal("POST repository:some/app:pull granted\n", grants())
		place(".docker/config.json", "{}")
		refused("EACCES", "no anonymous token: the token server answered 401", name)
	end)
end)
