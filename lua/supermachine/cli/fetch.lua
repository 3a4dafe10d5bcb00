--- A pull as the command line wishes it, with its progress on standard error.
local arguments = require "supermachine.cli.arguments"
local progress = require "supermachine.cli.progress"
local sm = require "supermachine"

local fetch = {}

local PASSWORD_MAX <const> = 65536

fetch.types = {
	store = "string", platform = "string", insecure = "flag", quiet = "flag", q = "flag", username = "string",
	["password-stdin"] = "flag",
}

-- The password is never a word: those are for everybody to read in /proc.  It ends with the input; a newline there is
-- not its own.  nil and what is wrong.
local function read_password()
	local text = io.stdin:read(PASSWORD_MAX + 1) or ""
	local password = text:gsub("\r?\n$", "")
	if password == "" then return nil, "no password on standard input" end
	if #text > PASSWORD_MAX then return nil, ("the password has more than %d bytes"):format(PASSWORD_MAX) end
	if password:find "%c" then return nil, "the password has control characters" end
	return password
end

local function wrong_login(options)
	if (options.username ~= nil) ~= (options.password_stdin or false) then
		return "options --username and --password-stdin come together"
	end
	if options.username and options.username:find ":" then return "option --username: no colon is expected" end
	if options.password_stdin and (options.interactive or options.i) then
		return "standard input is the password's or the process's"
	end
end

--- The image, or nil and the exit code, when what is wrong has been said.
function fetch.image(command, reference, options, policy)
	local wrong = wrong_login(options)
	if wrong then return nil, arguments.misuse(command, wrong) end
	local password
	if options.username then
		password, wrong = read_password()
		if not password then return nil, arguments.failed(wrong) end
	end
	local quiet = options.quiet or options.q
	local image, message = sm.image.pull(reference, {
		store = options.store, platform = options.platform, insecure = options.insecure, policy = policy,
		parallel = options.parallel, username = options.username, password = password,
		on_progress = not quiet and progress.listener() or nil, rootfs = true,
	})
	if not image then return nil, arguments.failed(message) end
	return image
end

return fetch
