-- How numbers and foreign text read: durations, sizes, packet lists, quoted bytes.

local constants = spark.constants
local byte, char, find, format, gsub, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.sub
local concat, floor, sort = table.concat, math.floor, table.sort

local LISTED_PACKETS = constants.wording.LISTED_PACKETS
local EXACT_BYTES = constants.wording.EXACT_BYTES
local QUOTED = constants.wording.QUOTED

local wording = {}

--- Puts values into a text of the tables, in the place of their names in braces.
function wording.fill(text, values)
  return (gsub(text, "{([a-z_]*)}", values))
end

--- 43000 as "43,000".
function wording.number(value)
  local digits = format("%d", value)
  local sign = ""
  if sub(digits, 1, 1) == "-" then
    sign, digits = "-", sub(digits, 2)
  end
  local first = #digits % 3
  local grouped = gsub(sub(digits, first + 1), "(%d%d%d)", ",%1")
  return sign .. (first == 0 and sub(grouped, 2) or sub(digits, 1, first) .. grouped)
end
local number = wording.number

--- "1 packet", "2 packets".
function wording.plural(count, one, many)
  return number(count) .. " " .. (count == 1 and one or many or one .. "s")
end
local plural = wording.plural

--- Bytes exactly up to 9,999, then as "62.0 kB".
function wording.size(count)
  if count <= EXACT_BYTES then
    return plural(count, "byte")
  end
  local value, unit = count / 1000, "kB"
  for _, larger in ipairs({ "MB", "GB", "TB" }) do
    if value < 999.95 then
      break
    end
    value, unit = value / 1000, larger
  end
  return format("%.1f %s", value, unit)
end

--- A time span in seconds with three digits at most: "42 us" (with a micro sign), "0.2 ms", "59 ms", "20.0 s",
-- "4 min 10 s", "17 h 46 min", "3 d 4 h".
function wording.duration(seconds)
  local nanoseconds = floor(seconds * 1e9 + 0.5)
  if nanoseconds < 0 then
    return "\226\136\146" .. wording.duration(-seconds)
  end
  if nanoseconds < 99500 then
    return format("%.0f \194\181s", nanoseconds / 1e3)
  end
  local milliseconds = nanoseconds / 1e6
  if milliseconds < 9.95 then
    return format("%.1f ms", milliseconds)
  end
  if milliseconds < 999.5 then
    return format("%.0f ms", milliseconds)
  end
  seconds = nanoseconds / 1e9
  if seconds < 99.95 then
    return format("%.1f s", seconds)
  end
  local whole = floor(seconds + 0.5)
  if whole < 3600 then
    return format("%d min %d s", floor(whole / 60), whole % 60)
  end
  local minutes = floor(seconds / 60 + 0.5)
  if minutes < 48 * 60 then
    return format("%d h %d min", floor(minutes / 60), minutes % 60)
  end
  local hours = floor(seconds / 3600 + 0.5)
  return format("%d d %d h", floor(hours / 24), hours % 24)
end

--- "packet 8" or "packets 8, 24, 35", with the count of those left out.
function wording.packets(numbers)
  local every, known = {}, {}
  for _, packet in ipairs(numbers) do
    if not known[packet] then
      known[packet] = true
      every[#every + 1] = packet
    end
  end
  sort(every)
  local listed = {}
  for index = 1, #every < LISTED_PACKETS and #every or LISTED_PACKETS do
    listed[index] = number(every[index])
  end
  local text = (#every == 1 and "packet " or "packets ") .. concat(listed, ", ")
  if #every > LISTED_PACKETS then
    text = text .. " and " .. number(#every - LISTED_PACKETS) .. " more"
  end
  return text
end

--- "a ping", "an event".
function wording.with_article(words)
  return (find(words, "^[aeiouA]") and "an " or "a ") .. words
end

--- Words as a sentence joins them: "a, b and c"; `last` takes the place of "and".
function wording.listing(words, last)
  if #words < 2 then
    return words[1] or ""
  end
  return concat(words, ", ", 1, #words - 1) .. " " .. (last or "and") .. " " .. words[#words]
end

local NAMED = { [9] = "\\t", [10] = "\\n", [13] = "\\r" }

--- Bytes from the network as quoted, escaped text, cut at 60 characters. Everything beyond printable ASCII is escaped:
-- what a script of another kind would do to a row is not known here.
function wording.quote(data)
  local is_text = not find(data, "[\128-\255]")
  local pieces, length = {}, 0
  for index = 1, #data do
    local code = byte(data, index)
    local unit
    if code >= 32 and code < 127 then
      unit = char(code)
    else
      unit = is_text and NAMED[code] or format("\\x%02x", code)
    end
    length = length + #unit
    if length > QUOTED then
      return '"' .. concat(pieces) .. '\226\128\166"'
    end
    if unit == '"' then
      unit, length = '\\"', length + 1
    end
    pieces[#pieces + 1] = unit
  end
  return '"' .. concat(pieces) .. '"'
end

spark.wording = wording
