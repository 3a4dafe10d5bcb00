--- Columns of text, and sizes for people.
local table_text = {}

-- Words come from strangers' images: no control characters (C1 in UTF-8 too).
local function printable(word) return (word:gsub("%c", "?"):gsub("\xc2[\x80-\x9f]", "?")) end

--- Print rows of words with their columns below each other.
function table_text.print(rows)
	local widths = {}
	for _, row in ipairs(rows) do
		for i, word in ipairs(row) do
			row[i] = printable(word)
			widths[i] = math.max(widths[i] or 0, #row[i])
		end
	end
	for _, row in ipairs(rows) do
		local line = {}
		for i, word in ipairs(row) do
			line[i] = i == #row and word or word .. (" "):rep(widths[i] - #word)
		end
		print(table.concat(line, "  "))
	end
end

--- 1234567 as "1.2 MiB".
function table_text.bytes(number)
	for _, unit in ipairs { { 1 << 30, "GiB" }, { 1 << 20, "MiB" }, { 1 << 10, "KiB" } } do
		if number >= unit[1] then return ("%.1f %s"):format(number / unit[1], unit[2]) end
	end
	return ("%d B"):format(number)
end

return table_text
