-- What an image's config says about running it.
local layout = require "spec.support.oci_layout"
local folders = require "spec.support.folder"
local sm = require "supermachine"

describe("an image's config", function()
	local folder, images
	before_each(function()
		folder = folders.new()
		images = layout.new(folder:join "layout")
	end)
	after_each(function() folder:close() end)

	local function pull(change)
		images.entries = layout.list()
		images:tag(images:image { change_config = function(config) config.config = change end }, "t")
		return sm.image.pull(("oci:%s:t"):format(images.path), { store = folder:join "store", platform = "amd64" })
	end

	it("tells volumes, ports, labels and the health check", function()
		local image <close> = assert(pull {
			Entrypoint = { "/e" }, Cmd = { "c" }, Env = { "A=1" }, WorkingDir = "/w", User = "nobody:daemon",
			StopSignal = "SIGQUIT", Volumes = { ["/data"] = {}, ["/log"] = {} },
			ExposedPorts = { ["80/tcp"] = {}, ["53/udp"] = {} }, Labels = { a = "1", ["b.c"] = "" },
			Healthcheck = { Test = { "CMD", "true" }, Interval = 30 * 10 ^ 9 // 1 | 0, Timeout = 1500000, StartPeriod = 0,
				StartInterval = 5000000000, Retries = 3 },
			OnBuild = { "ignored" }, Shell = { "ignored" },
		})
		assert.same({
			entrypoint = { "/e" }, cmd = { "c" }, env = { "A=1" }, workdir = "/w", user = "nobody:daemon",
			stop_signal = "SIGQUIT", volumes = { "/data", "/log" }, exposed_ports = { "53/udp", "80/tcp" },
			labels = { a = "1", ["b.c"] = "" },
			healthcheck = { test = { "CMD", "true" }, interval_ms = 30000, timeout_ms = 1.5, start_period_ms = 0,
				start_interval_ms = 5000, retries = 3 },
		}, image:process())
	end)

	it("may be without any of it", function()
		local image <close> = assert(pull { Healthcheck = { Test = { "NONE" } } })
		local process = image:process()
		assert.same({ test = { "NONE" } }, process.healthcheck)
		assert.same({ {}, {}, {} }, { process.volumes, process.exposed_ports, process.labels })
		local bare <close> = assert(pull(nil))
		assert.is_nil(bare:process().healthcheck)
	end)

	for name, case in pairs {
		["volumes that are a list"] = { { Volumes = { "/data" } }, "'Volumes' is not an object" },
		["ports that are a word"] = { { ExposedPorts = "80" }, "'ExposedPorts' is not an object" },
		["labels that are a list"] = { { Labels = { "a" } }, "'Labels' is not an object" },
		["a label that is a number"] = { { Labels = { deep = 1 } }, "Labels['deep'] is not a string" },
		["a health check that is a word"] = { { Healthcheck = "true" }, "'Healthcheck' is not an object" },
		["a test that is a word"] = { { Healthcheck = { Test = "true" } }, "'Test' is not an array" },
		["a time that is a word"] = { { Healthcheck = { Interval = "1s" } }, "Healthcheck.Interval is not a whole number" },
		["a negative time"] = { { Healthcheck = { Timeout = -1 } }, "Healthcheck.Timeout is not a whole number" },
		["half a retry"] = { { Healthcheck = { Retries = 0.5 } }, "Healthcheck.Retries is not a whole number" },
		["a stop signal that is a number"] = { { StopSignal = 9 }, "'StopSignal' is not a string" },
	} do
		it("is refused with " .. name, function()
			local none, message, code = pull(case[1])
			assert.same({ nil, "EBADMSG" }, { none, code })
			assert.matches(case[2], message, 1, true)
			assert.matches("config sha256:%x+", message)
		end)
	end
end)
