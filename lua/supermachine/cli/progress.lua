--- A pull's progress on standard error: on a terminal a line a layer, with rate and time left, redrawn in place;
-- otherwise a plain line when a layer begins, breaks off and ends.
local core = require "supermachine.core"

local progress = {}

local WINDOW_MS <const> = 3000 -- what the rate is taken over
local words = {
	waiting = "another pull fetches it", fetching = "fetching", retrying = "broke off, trying again", done = "done",
	reused = "there already", failed = "failed",
}
local is_last = { done = true, reused = true, failed = true }

function progress.size(bytes)
	local units, i = { "B", "KiB", "MiB", "GiB" }, 1
	while bytes >= 1024 and units[i + 1] do
		bytes, i = bytes / 1024, i + 1
	end
	return (i == 1 and "%d %s" or "%.1f %s"):format(bytes, units[i])
end

-- Bytes a second over the last few seconds, or nil while nothing can be said.  samples: { { now, done }, .. }.
local function rate_of(samples, event, now)
	-- It began anew.
	if samples[1] and event.done < samples[#samples][2] then
		for i = #samples, 1, -1 do samples[i] = nil end
	end
	samples[#samples + 1] = { now, event.done }
	while samples[3] and now - samples[2][1] > WINDOW_MS do table.remove(samples, 1) end
	local first = samples[1]
	if now <= first[1] or event.done == first[2] then return nil end
	return (event.done - first[2]) / (now - first[1]) * 1000
end

--- A function from an event to its line, by a clock in milliseconds.
function progress.line(clock)
	local samples = {}
	return function(event)
		local text = ("%s  %-9s"):format(event.digest:sub(8, 19), words[event.state])
		if is_last[event.state] or event.state == "waiting" then return text .. "  " .. progress.size(event.total) end
		text = ("%s  %s of %s"):format(text, progress.size(event.done), progress.size(event.total))
		if event.state ~= "fetching" then return text end
		samples[event.index] = samples[event.index] or {}
		local rate = rate_of(samples[event.index], event, clock())
		if not rate then return text end
		local left = math.ceil((event.total - event.done) / rate)
		return ("%s  %s/s  %d:%02d left"):format(text, progress.size(rate), left // 60, left % 60)
	end
end

--- A listener for what is no terminal.
function progress.plain(file)
	local states = {}
	return function(event)
		if states[event.index] == event.state then return end
		states[event.index] = event.state
		file:write(("%s  %s  %s\n"):format(event.digest, words[event.state], progress.size(event.total)))
		file:flush()
	end
end

--- A listener for a terminal.  What has ended scrolls away above; only what is under way is redrawn, so that it is
-- never more lines than there are transfers.  Lines are not wrapped meanwhile: a wrapped one would be two to go up.
function progress.redrawn(file)
	local line, texts, drawn = progress.line(core.now_ms), {}, 0
	return function(event)
		local out = { "\27[?7l", drawn > 0 and ("\27[%dA"):format(drawn) or "", "\27[J" }
		texts[event.index] = line(event)
		if is_last[event.state] then
			out[#out + 1] = texts[event.index] .. "\n"
			texts[event.index] = nil
		end
		local indexes = {}
		for index in pairs(texts) do indexes[#indexes + 1] = index end
		table.sort(indexes)
		for _, index in ipairs(indexes) do out[#out + 1] = texts[index] .. "\n" end
		drawn = #indexes
		out[#out + 1] = "\27[?7h"
		file:write(table.concat(out))
		file:flush()
	end
end

--- An on_progress for image.pull that writes to standard error.
function progress.listener() return (core.is_terminal(2) and progress.redrawn or progress.plain)(io.stderr) end

return progress
