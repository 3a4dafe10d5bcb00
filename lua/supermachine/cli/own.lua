--- What a restored machine is given of its own, from the command line: host name, environment,
-- secrets and mounts.
local arguments = require "supermachine.cli.arguments"

local own = {}

own.types = { hostname = "string", env = "list", secret = "list", v = "list" }

local HOSTNAME_MAX <const>, SECRET_MAX <const>, SECRETS_MAX <const> = 64, 1 << 20, 64

-- A secret is never a word: those are for everybody to read in /proc.
local function read_secret(name, path)
	local file, message = io.open(path, "rb")
	if not file then return nil, ("secret %s: %s"):format(name, message) end
	local value, why = file:read(SECRET_MAX + 1)
	file:close()
	if not value and why then return nil, ("secret %s: %s: %s"):format(name, path, why) end
	value = value or ""
	if #value > SECRET_MAX then
		return nil, ("secret %s: %s has more than %d bytes"):format(name, path, SECRET_MAX)
	end
	return value
end

-- NAME=FILE words: { path in the guest = file here }, or nil and what is wrong.
local function secret_files(words)
	local files, count = {}, 0
	for _, word in ipairs(words) do
		local name, file = word:match "^([^=]+)=(.+)$"
		if not name then return nil, "option --secret: NAME=FILE is expected" end
		local path = name:sub(1, 1) == "/" and name or "/run/secrets/" .. name
		if files[path] then return nil, ("option --secret: %s is named twice"):format(name) end
		files[path], count = file, count + 1
	end
	if count > SECRETS_MAX then return nil, ("option --secret: at most %d"):format(SECRETS_MAX) end
	return files
end

local function wrong_hostname(name)
	if not name or #name <= HOSTNAME_MAX and name:find "^[%w%-._]+$" then return nil end
	return ("option --hostname: 1 to %d letters, digits, '-', '.' and '_' expected"):format(HOSTNAME_MAX)
end

local function wrong_env(words)
	for _, word in ipairs(words) do
		if not word:find "^[^=]+=" then return "option --env: NAME=VALUE is expected" end
	end
end

--- snapshot:restore's options from the command line's; or nil and the exit code, when what is wrong has been said.
function own.options(command, options)
	local wrong = wrong_hostname(options.hostname) or wrong_env(options.env or {})
	local files = {}
	if not wrong then files, wrong = secret_files(options.secret or {}) end
	local mounts
	if not wrong then mounts, wrong = arguments.mounts(options.v) end
	if wrong then return nil, arguments.misuse(command, wrong) end
	local secrets
	for path, file in pairs(files) do
		local value, message = read_secret(path, file)
		if not value then return nil, arguments.failed(message) end
		secrets = secrets or {}
		secrets[path] = value
	end
	return { hostname = options.hostname, env = options.env, secrets = secrets, mounts = mounts }
end

return own
