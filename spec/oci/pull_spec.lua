-- Transfers: several at once, over lines that break, by several processes, killed at any moment.
local build = require "spec.support.build"
local core = require "supermachine.core"
local needs = require "spec.support.needs"
local registry = require "spec.support.registry"
local scratch = require "spec.support.scratch"
local sm = require "supermachine"

local check, missing = needs(it, pending, "python3")

local LAYERS <const>, PIECE <const> = 6, 64 << 10

-- Every file of a store is a blob that is what its name says, a reference, or a partial blob.  Returns their numbers.
local function verify(store)
	local counts = { blobs = 0, refs = 0, partial = 0 }
	for _, file in ipairs(scratch.files(store)) do
		local hex = file:match "^blobs/sha256/(%x+)$"
		if hex then
			assert.equal(hex, core.sha256(scratch.read(store .. "/" .. file)))
			counts.blobs = counts.blobs + 1
		elseif file:match "^refs/%x+$" then
			counts.refs = counts.refs + 1
		else
			assert.matches("^partial/[%w.]+$", file)
			counts.partial = counts.partial + 1
		end
	end
	return counts
end

local COMPLETE <const> = { blobs = LAYERS + 2, refs = 1, partial = 0 }

describe("the layers of an image", function()
	local server, folder, store

	setup(function()
		if missing then return end
		server = registry.start_fake()
		folder = scratch.folder()
	end)
	teardown(function()
		if server then server:stop() end
		if folder then scratch.remove(folder) end
	end)
	before_each(function()
		store = folder and scratch.run("mktemp -d " .. folder .. "/store.XXXXXX")
	end)

	local function given(options)
		options = options or {}
		options.store, options.platform = options.store or store, "amd64"
		return options
	end
	local function reference(how, at) return "http://" .. (at or server).host .. "/many/" .. how end
	local function pull(how, options) return sm.image.pull(reference(how), given(options)) end
	local function begin(how, at, options)
		return assert(core.image_pull_begin(reference(how, at), given(options)))
	end
	-- Which bytes of which layers were asked for: { { layer, start }, .. }
	local function asked(how, at)
		local list = {}
		for layer, start in (at or server):log():gmatch("BLOB " .. how:gsub("%-", "%%-") .. " (%d+) (%d+)\n") do
			list[#list + 1] = { tonumber(layer), tonumber(start) }
		end
		return list
	end
	check("come several at once", function()
		-- Nobody gets an answer there before four have asked; of the last two, the server gives up on its own.
		local image, _, code = pull("four", { parallel = 2, timeout_ms = 300 })
		assert.is_nil(image)
		assert.equal("ETIMEDOUT", code)
		local two <close> = assert(pull("two", { parallel = 2 }))
		assert.equal(LAYERS, #two:layers())
		local most = 0
		for count in server:log():gmatch "UNDERWAY two (%d+)" do most = math.max(most, tonumber(count)) end
		assert.equal(2, most)
		assert.same(COMPLETE, verify(store))
	end)

	check("are asked for four at once", function()
		local own = registry.start_fake()
		local operation <close> = begin("four", own)
		-- The first four get theirs; two more can never be four.
		local done = {}
		while #done < 4 do
			assert.same({ 1 }, core.poll({ { operation:progress_fd(), "r" }, { operation:fd(), "r" } }))
			for _, event in ipairs(operation:progress()) do
				if event.state == "done" then done[#done + 1] = event.index end
			end
		end
		operation:cancel()
		local image, _, code = operation:finish()
		own:stop()
		assert.is_nil(image)
		assert.equal("ECANCELED", code)
		assert.same({ blobs = 4, refs = 0, partial = 0 }, verify(store))
	end)

	local roads = {
		-- how, options, what stats say
		{ "drops", {}, { retries = 12 * LAYERS - LAYERS + (LAYERS - 1) } },
		{ "rangeless", {}, { retries = LAYERS } },
		{ "good-range", {}, { retries = LAYERS } },
		{ "wrong-range", {}, { retries = 2 * LAYERS } },
		{ "other-size", {}, {} },
		{ "no-range", {}, { retries = 2 * LAYERS } },
		{ "other-range", {}, { retries = LAYERS } },
		{ "whole-range", {}, { retries = 2 * LAYERS } },
		{ "stalls", { stall_ms = 1000, parallel = LAYERS }, {} },
		{ "error-500", { parallel = LAYERS }, { retries = 2 * LAYERS } },
		{ "limited", { parallel = LAYERS }, { retries = LAYERS } },
		{ "expired", {}, { retries = 0 } },
		{ "busy-manifest", {}, { retries = 0 } },
		{ "busy-config", {}, { retries = 0 } },
	}
	for _, road in ipairs(roads) do
		local how, options, expected = table.unpack(road)
		check("arrive by way of " .. how, function()
			local image <close>, stats = pull(how, options)
			assert(image, stats)
			for key, value in pairs(expected) do assert.equal(value, stats[key]) end
			if how == "stalls" then assert.is_true(stats.retries >= LAYERS) end
			assert.equal(LAYERS, stats.fetched_layers)
			assert.same(COMPLETE, verify(store))
		end)
	end

	check("go on where they broke off", function()
		assert(pull("drops")):close()
		local from = {}
		for _, get in ipairs(asked "drops") do
			from[get[1]] = from[get[1]] or {}
			table.insert(from[get[1]], get[2])
		end
		local starts = {}
		for i = 0, 11 do starts[i + 1] = i * PIECE end
		assert.same(starts, table.move(from[0], 1, 12, 1, {}))
	end)

	check("share one new token when the old one has run out", function()
		local own = registry.start_fake()
		local image = sm.image.pull(reference("expired", own), given { parallel = 4 })
		local log = own:log()
		own:stop()
		assert(image):close()
		local _, tokens = log:gsub("GET /token", "")
		assert.equal(2, tokens)
	end)

	local dead_ends = {
		-- how, code, message, how often each of the layers may be asked for, how many partial blobs may stay
		{ "garbage", "EIO", "hunk.*the last of 3 attempts", 4, 1 },
		{ "tiny-drops", "EIO", "the last of 3 attempts", 3, 1 },
		{ "limited-for-an-hour", "EAGAIN", "too many requests", 1, 0 },
		{ "endless-500", "EIO", "status 500", 3, 0 },
		{ "unasked-range", "EIO", "sha256:%x+: status 206", 1, 0 },
		{ "stalls-for-ever", "ETIMEDOUT", "/blobs/sha256:%x+: .*the last of 3 attempts", 3, 0 },
		{ "shorter", "EBADMSG", "sha256:%x+: ends after", 1, 0 },
		{ "longer", "EBADMSG", "sha256:%x+: more than its", 1, 0 },
	}
	for _, case in ipairs(dead_ends) do
		local how, expected, pattern, most, partial = table.unpack(case)
		check("are given up by way of " .. how, function()
			local open = scratch.descriptors()
			local image, message, code = pull(how, { retries = 2, parallel = 1, stall_ms = 1000 })
			assert.equal(open, scratch.descriptors())
			assert.is_nil(image)
			assert.matches(pattern, message)
			assert.equal(expected, code)
			assert.is_true(#asked(how) <= most)
			assert.same({ blobs = 0, refs = 0, partial = partial }, verify(store))
		end)
	end

	check("are not asked for again when that cannot help, and not in vain at all", function()
		local _, _, code = pull("good", { blob_max_bytes = 1000 })
		assert.equal("EFBIG", code)
		assert.same({}, asked "good")
		assert.same({ blobs = 0, refs = 0, partial = 0 }, verify(store))
	end)

	check("are made of what an earlier pull left, if that is sound", function()
		local image <close> = assert(pull "good")
		local layers = image:layers()
		local function blob(i) return ("%s/blobs/sha256/%s"):format(store, layers[i].digest:sub(8)) end
		local function partial(i) return ("%s/partial/%s"):format(store, layers[i].digest:sub(8)) end
		local bytes = {}
		for i = 1, LAYERS do
			bytes[i] = scratch.read(blob(i))
			os.remove(blob(i))
		end
		scratch.write(partial(1), bytes[1]:sub(1, 5 * PIECE))
		scratch.write(partial(2), bytes[2])
		scratch.write(partial(3), ("x"):rep(5 * PIECE))
		scratch.write(partial(4), ("x"):rep(#bytes[4]))
		scratch.write(partial(5), bytes[5] .. "x")
		local before = #asked "good"
		local again <close>, stats = assert(pull "good")
		assert.equal(image:digest(), again:digest())
		assert.equal(LAYERS, stats.fetched_layers)
		assert.equal(5 * PIECE + #bytes[2], stats.resumed_bytes)
		local gets = table.move(asked "good", before + 1, before + 100, 1, {})
		table.sort(gets, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] > b[2] end)
		assert.same({ { 0, 5 * PIECE }, { 2, 5 * PIECE }, { 2, 0 }, { 3, 0 }, { 4, 0 }, { 5, 0 } }, gets)
		assert.same(COMPLETE, verify(store))
	end)

	check("leave no room for what dead pulls forgot", function()
		assert(pull "good"):close()
		local old, recent = store .. "/partial/" .. ("a"):rep(64), store .. "/partial/" .. ("b"):rep(64)
		scratch.run(("touch -d '8 days ago' %s && touch -d '6 days ago' %s && touch %s/partial/new.1"):format(old, recent,
			store))
		assert(pull "busy-config"):close()
		assert.same({ "partial/" .. ("b"):rep(64) }, table.move(scratch.files(store), LAYERS + 3, LAYERS + 3, 1, {}))
	end)

	describe("that another pull fetches", function()
		local gate
		before_each(function() gate = not missing and registry.start_fake() end)
		after_each(function() if gate then gate:stop() end end)

		local function open_gate()
			assert.is_nil(sm.image.pull("http://" .. gate.host .. "/open-gate", given()))
		end
		-- Until all layers are in that state, with some bytes there.
		local function await_state(operation, state)
			local latest, found = {}, 0
			while found < LAYERS do
				assert.same({ 1 }, core.poll({ { operation:progress_fd(), "r" }, { operation:fd(), "r" } }))
				for _, event in ipairs(operation:progress()) do latest[event.index] = event end
				found = 0
				for _, event in pairs(latest) do
					found = found + (event.state == state and (state == "waiting" or event.done > 0) and 1 or 0)
				end
			end
		end

		check("are waited for, which can be cancelled, and then found", function()
			local first <close> = begin("gate", gate, { parallel = LAYERS })
			await_state(first, "fetching")
			local second <close> = begin("gate", gate)
			local third <close> = begin("gate", gate)
			await_state(second, "waiting")
			await_state(third, "waiting")
			second:cancel()
			local image, _, code = second:finish()
			assert.is_nil(image)
			assert.equal("ECANCELED", code)
			open_gate()
			for i, operation in ipairs { first, third } do
				local pulled, stats = operation:finish()
				assert(pulled, stats):close()
				assert.equal(i == 1 and LAYERS or 0, stats.fetched_layers)
				assert.equal(i == 1 and 0 or LAYERS, stats.reused_layers)
			end
			assert.equal(LAYERS, #asked("gate", gate))
			assert.same(COMPLETE, verify(store))
		end)

		check("are gone on with when it ends without them", function()
			local first <close> = begin("gate", gate, { parallel = LAYERS })
			await_state(first, "fetching")
			local second <close> = begin("gate", gate)
			await_state(second, "waiting")
			first:cancel()
			first:finish()
			local image, stats = second:finish()
			assert(image, stats):close()
			assert.equal(LAYERS, stats.fetched_layers)
			assert.is_true(stats.resumed_bytes > 0)
			assert.same(COMPLETE, verify(store))
		end)
	end)

	-- A process that pulls; its standard output, whose first line is its id.
	local function process(how)
		local script = ("%s/pull-%s.lua"):format(folder, how)
		scratch.write(script, ([[
			package.cpath = %q
			local core = require "supermachine.core"
			local image, message = assert(core.image_pull_begin(%q, { store = %q, platform = "amd64" })):finish()
			print(image and image:digest() or message)]]):format(package.cpath, reference(how), store))
		return io.popen(("exec 2>&1; %s/supermachine %s & echo $!; wait"):format(build.dir, script))
	end

	check("are fetched once by two processes at once", function()
		local first, second = process "meet", process "meet"
		for _, pipe in ipairs { first, second } do
			pipe:read "l"
			assert.matches("^sha256:%x+$", pipe:read "l")
			pipe:close()
		end
		assert.equal(LAYERS, #asked "meet")
		assert.same(COMPLETE, verify(store))
	end)

	check("survive pulls that are killed at any moment", function()
		local kills, finished = tonumber(os.getenv "SUPERMACHINE_KILLS") or 20, 0
		for _ = 1, kills do
			local pipe = process "slow"
			local pid = pipe:read "l"
			core.poll({}, math.random(0, 250))
			os.execute("kill -9 " .. pid .. " 2>/dev/null")
			pipe:close()
			if scratch.files(store)[1] and verify(store).refs == 1 then
				finished = finished + 1
				scratch.run("rm -r " .. store .. "/*")
			elseif math.random(3) == 1 then
				assert(pull "slow"):close()
				assert.same(COMPLETE, verify(store))
				scratch.run("rm -r " .. store .. "/*")
			end
		end
		assert(pull "slow"):close()
		assert.same(COMPLETE, verify(store))
		assert.is_true(finished < kills)
	end)

	describe("are told of", function()
		check("one by one, each to its end", function()
			local latest = {}
			local image <close> = assert(pull("slow", { on_progress = function(event)
				local before = latest[event.index]
				if before then
					assert.is_true(event.done >= before.done)
					assert.is_true(before.state == "fetching" or before.state == "waiting")
				end
				latest[event.index] = event
			end }))
			local layers = image:layers()
			for i = 1, LAYERS do
				local total = layers[i].size
				assert.same({ index = i, digest = layers[i].digest, state = "done", done = total, total = total }, latest[i])
			end
			latest = {}
			scratch.run("rm -r " .. store .. "/refs/*")
			assert(pull("slow", { on_progress = function(event) latest[event.index] = event.state end })):close()
			for i = 1, LAYERS do assert.equal("reused", latest[i]) end
		end)

		check("in a task, where others go on", function()
			local own, states = registry.start_fake(), {}
			sm.run(function()
				-- It ends only when the other task has gone on.
				sm.go(function() sm.image.pull("http://" .. own.host .. "/open-gate", given()) end)
				local image, message = sm.image.pull(reference("gate", own), given {
					on_progress = function(event) states[event.index] = event.state end,
				})
				assert(image, message):close()
			end)
			own:stop()
			for i = 1, LAYERS do assert.equal("done", states[i]) end
		end)

		check("and an error of the listener ends the pull", function()
			local open = scratch.descriptors()
			local fine, message = pcall(pull, "slow", { on_progress = function() error("enough", 0) end })
			assert.is_false(fine)
			assert.equal("enough", message)
			assert.equal(open, scratch.descriptors())
		end)
	end)

	it("have options that are checked", function()
		for _, options in ipairs { { parallel = 0 }, { parallel = 65 }, { retries = -1 }, { stall_ms = -1 } } do
			assert.error_matches(function() sm.image.pull("http://127.0.0.1:1/x", options) end, "option '%l+_?%l*': ")
		end
		assert.error_matches(function() sm.image.pull("http://127.0.0.1:1/x", { on_progress = 1 }) end, "on_progress")
	end)
end)
