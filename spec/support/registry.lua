-- A registry on loopback for one spec file: Debian's docker-registry on a port of its own choice.
local scratch = require "spec.support.scratch"

local registry = {}
registry.__index = registry

-- Runs a command in the background and waits until its output has a line with `pattern`, which captures the port.
-- Returns the port and a function that stops it.
local function serve(folder, command, pattern)
	local log = scratch.quote(folder .. "/log")
	scratch.write(folder .. "/log", "")
	-- The log is a file, so that nobody has to read on; tail waits for its next line and ends with the server.
	local pipe = assert(io.popen(("%s >%s 2>&1 & p=$!; echo $p; tail --pid=$p -s 0.1 -n +1 -f %s"):format(command, log,
		log)))
	local pid = pipe:read "l"
	local port
	repeat
		local line = pipe:read "l"
		port = line and line:match(pattern)
	until port or not line
	local function stop()
		os.execute("kill " .. pid .. " 2>/dev/null")
		pipe:close()
	end
	if not port then
		stop()
		local words = scratch.read(folder .. "/log")
		scratch.remove(folder)
		error("the server did not start:\n" .. words, 3)
	end
	return port, stop
end

-- options: tls = { certificate =, key = }, auth = the value of that name in config.yml (YAML), storage = the folder
-- that another registry fills.  Blobs lie below registry.storage.
function registry.start(options)
	options = options or {}
	local self = setmetatable({ folder = scratch.folder() }, registry)
	self.storage = options.storage or self.folder .. "/storage"
	local tls = options.tls
		and ("  tls: {certificate: '%s', key: '%s'}\n"):format(options.tls.certificate, options.tls.key)
	scratch.write(self.folder .. "/config.yml", ([[
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: '%s'}
http:
  addr: '127.0.0.1:0'
  secret: spec
%s%s]]):format(self.storage, tls or "", options.auth and "auth: " .. options.auth .. "\n" or ""))
	self.port, self.stop_server = serve(self.folder,
		"OTEL_TRACES_EXPORTER=none docker-registry serve " .. scratch.quote(self.folder .. "/config.yml"),
		'listening on 127%.0%.0%.1:(%d+)')
	self.host = "127.0.0.1:" .. self.port
	return self
end

-- A registry with made-up answers: support/fake_registry.py, or `script` there, says which.
function registry.start_fake(script, arguments)
	local self = setmetatable({ folder = scratch.folder() }, registry)
	self.port, self.stop_server = serve(self.folder,
		("exec python3 -Bu spec/support/%s %s"):format(script or "fake_registry.py", arguments or ""),
		"listening on (%d+)")
	self.host = "127.0.0.1:" .. self.port
	return self
end

-- For start's `auth`: whoever knows the name "user" and the password "secret".  Files go to the folder.
function registry.htpasswd(folder)
	scratch.run(([[perl -e 'print "user:", crypt("secret", "\$2b\$05\$" . "a" x 21 . "u"), "\n"' >%s/htpasswd]]):format(
		folder))
	return ("{htpasswd: {realm: spec, path: '%s/htpasswd'}}"):format(folder)
end

-- The same with tokens, and the issuer that gives them: support/token_issuer.py.
function registry.tokens(folder)
	scratch.run(([[cd %s && openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout issuer.key -out issuer.crt \
		-subj /CN=issuer 2>&1]]):format(folder))
	local issuer = registry.start_fake("token_issuer.py", ("%s/issuer.crt %s/issuer.key"):format(folder, folder))
	return ("{token: {realm: 'http://%s/auth', service: spec, issuer: spec, rootcertbundle: '%s/issuer.crt'}}"):format(
		issuer.host, folder), issuer
end

-- A certificate, its own authority, for these subjectAltNames, in two files of a folder: { certificate =, key = }.
function registry.certificate(folder, names)
	local made = { certificate = folder .. "/certificate", key = folder .. "/key" }
	scratch.run(([[openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout %s -out %s \
		-subj /CN=spec -addext subjectAltName=%s]]):format(made.key, made.certificate, names))
	return made
end

function registry:log() return scratch.read(self.folder .. "/log") end

-- What it has logged during run().
function registry:heard(run)
	local before = #self:log()
	run()
	return self:log():sub(before + 1)
end

-- Copies oci:DIR:TAG to NAME:TAG here, as it is.
function registry:push(source, name, options)
	scratch.run(("skopeo --insecure-policy copy -q --dest-tls-verify=false %s %s docker://%s/%s"):format(options or "",
		scratch.quote(source), self.host, name))
end

-- The file of a blob.
function registry:blob_path(digest)
	local hex = digest:match ":(.*)"
	return ("%s/docker/registry/v2/blobs/sha256/%s/%s/data"):format(self.storage, hex:sub(1, 2), hex)
end

function registry:stop()
	self.stop_server()
	scratch.remove(self.folder)
end
registry.__close = registry.stop

return registry
