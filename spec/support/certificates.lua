-- Authorities and what they have signed, in files of a folder: PEM, made by openssl(1).
local scratch = require "spec.support.scratch"

local certificates = {}

local REQUEST <const> = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650"

local function run(folder, command, ...)
	scratch.run(("cd %s && { %s; } 2>&1"):format(scratch.quote(folder), command:format(...)))
end

-- NAME and NAME.key.
function certificates.authority(folder, name)
	run(folder, REQUEST .. " -x509 -keyout %s.key -out %s -subj /CN=%s", name, name, name)
end

-- WHO.crt, for localhost and 127.0.0.1, and WHO.key.
function certificates.sign(folder, authority, who)
	scratch.write(("%s/%s.names"):format(folder, who), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
	run(folder, REQUEST .. " -keyout %s.key -out %s.csr -subj /CN=%s", who, who, who)
	run(folder, "openssl x509 -req -in %s.csr -CA %s -CAkey %s.key -CAcreateserial -days 3650 -extfile %s.names " ..
		"-out %s.crt", who, authority, authority, who, who)
end

return certificates
