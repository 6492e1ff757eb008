-- One line about each message: `summary` as the Python analyzer writes it, and `info` for Wireshark's column.
--
-- Names and data were chosen by strangers: whatever is not plain is quoted, escaped and cut. The one difference to
-- Python's lines: which characters beyond ASCII are printable is decided by a few ranges, not by Unicode's tables (see
-- `is_printable`), so a rare letter is escaped here and shown there.

local constants = spark.constants
local character, escaped, visible, size = spark.character, spark.escaped, spark.visible, spark.wording.size
local NULL = spark.NULL
local LONGEST_QUOTE = constants.messages.summary.LONGEST_QUOTE
local PLAIN_CHARACTERS = constants.messages.summary.PLAIN_CHARACTERS
local INDEXES_SHOWN = constants.messages.summary.INDEXES_SHOWN
local NOT_KNOWN = constants.messages.summary.NOT_KNOWN
local TIME_FORMAT = constants.messages.summary.TIME_FORMAT
local REFUSALS = constants.messages.summary.REFUSALS
local COUNTED = constants.messages.summary.COUNTED
local DEFAULT_TTL = constants.message_table.DEFAULT_TTL
local GOODBYE_FIELDS = constants.message_table.GOODBYE_FIELDS

local find, format, gsub, lower, match, sub, upper =
  string.find, string.format, string.gsub, string.lower, string.match, string.sub, string.upper
local concat, date, floor, sort = table.concat, os.date, math.floor, table.sort

-- Python's "{}" is "%s" here.
local PHRASES = {}
for name, phrase in pairs(constants.messages.summary.PHRASES) do
  PHRASES[name] = gsub(gsub(phrase, "%%", "%%%%"), "{}", "%%s")
end

local LONGEST_INFO = 80 -- characters; what a column of ordinary width shows
local LONGEST_INFO_QUOTE = 30 -- characters of an event's data in it, so that what stands behind them is seen too

-- Pieces ---------------------------------------------------------------------------------------------------------

local UNPLAIN = "[^ !#-[%]^-~]" -- anything but printable ASCII without quote and backslash

--- `text` in double quotes, at most `limit` characters of it, with nothing in it that acts.
local function quote(text, limit)
  limit = limit or LONGEST_QUOTE
  if #text <= limit and not find(text, UNPLAIN) then
    return '"' .. text .. '"'
  end
  local shown, cut = escaped(text, '["\\]', limit)
  return '"' .. shown .. (cut and '"...' or '"')
end

local PLAIN = "^[" .. PLAIN_CHARACTERS .. "]+$"

local function is_plain(text, limit)
  return #text <= limit and find(text, PLAIN) ~= nil
end

--- A name as it is when it is plain, otherwise quoted; a question mark when it is not known.
local function name_text(name)
  if not name then
    return NOT_KNOWN
  end
  return is_plain(name, LONGEST_QUOTE) and name or quote(name)
end

--- A whole number; one that is too large for that is text already.
local function whole(number)
  if not number then
    return NOT_KNOWN
  end
  return type(number) == "number" and format("%d", number) or number
end

--- A double in the fewest digits that give it back, as Python writes it: "23.4375", "1e-07". (For some powers of two
-- Python finds a number of one digit less.)
local function real(number)
  -- Fifteen digits are told apart by any double but those near zero, which have fewer bits.
  local written
  for digits = math.abs(number) < 2.0 ^ -1022 and 1 or 15, 17 do
    written = format("%." .. digits - 1 .. "e", number)
    if tonumber(written) == number then
      break
    end
  end
  local sign, first, rest, exponent = match(written, "^(%-?)(%d)%D?(%d*)e([+-]%d+)$")
  exponent = tonumber(exponent)
  local mantissa = gsub(first .. rest, "0+$", "")
  if mantissa == "" then
    mantissa = "0"
  end
  if exponent < -4 or exponent >= 16 then
    local fraction = #mantissa > 1 and "." .. sub(mantissa, 2) or ""
    return format("%s%s%se%s%02d", sign, sub(mantissa, 1, 1), fraction, exponent < 0 and "-" or "+", math.abs(exponent))
  elseif exponent < 0 then
    return sign .. "0." .. ("0"):rep(-exponent - 1) .. mantissa
  end
  local digits = mantissa .. ("0"):rep(exponent + 1 - #mantissa)
  local fraction = sub(digits, exponent + 2)
  return sign .. sub(digits, 1, exponent + 1) .. "." .. (fraction == "" and "0" or fraction)
end

local function add(parts, text)
  parts[#parts + 1] = text
end

-- What each kind of message says ---------------------------------------------------------------------------------

local function product(values)
  local parts = {}
  if not values.product_id then
    return parts
  end
  add(parts, format(PHRASES.product, whole(values.product_id)))
  if values.firmware_version then
    add(parts, format(PHRASES.firmware, whole(values.firmware_version)))
  end
  return parts
end

local function platform(values)
  return values.platform or format(PHRASES.platform, whole(values.platform_id))
end

local function hello(values)
  local parts = product(values)
  if (values.platform_id or 0) ~= 0 then
    add(parts, platform(values))
  end
  return concat(parts, ", ")
end

local function event(values)
  local data = values.data and " = " .. quote(values.data) or ""
  return format(PHRASES.event, name_text(values.name) .. data, values.scope, whole(values.ttl))
end

local function subscribe(values)
  local whose = values.scope == "mine" and PHRASES.own_events or PHRASES.all_events
  if values.device_id then
    whose = name_text(values.device_id)
  end
  return format(PHRASES.subscribe, name_text(values.prefix), whose)
end

local function describe(values)
  if values.metrics then
    return PHRASES.metrics
  elseif values.problem then
    return format(PHRASES.not_readable, values.problem)
  end
  local parts = {}
  for _, counted in ipairs(COUNTED) do
    local items = values[counted[2]]
    if items then
      local count = #(items.order or items)
      add(parts, whole(count) .. " " .. counted[count == 1 and 1 or 2])
    end
  end
  return concat(parts, ", ") .. (values["repeat"] and PHRASES.repeated or "")
end

local function variable(values)
  local shown
  local value = values.value
  if value == nil then
    shown = format(PHRASES.no_value, name_text(values.type))
  elseif values.type == "string" then
    shown = quote(value)
  elseif values.type == "double" and type(value) == "number" then
    shown = real(value)
  elseif type(value) == "number" then
    shown = whole(value)
  else
    shown = tostring(value)
  end
  local guessed = values.type_source == "length" and format(PHRASES.guessed, values.type) or ""
  return name_text(values.name) .. " = " .. shown .. guessed
end

local function update(values)
  if not values.file_length then
    return PHRASES.no_particulars
  end
  local pace = values.fast_offered and PHRASES.fast_offered or ""
  return format(PHRASES.update, size(values.file_length), size(values.chunk_size), pace)
end

local function data_of_chunk(values)
  local crc = PHRASES.no_crc
  if values.crc then
    crc = values.crc_ok and PHRASES.crc_right or PHRASES.crc_wrong
  end
  return size(values.size) .. ", " .. crc
end

local function chunk_index(values)
  return values.index and format(PHRASES.chunk_index, whole(values.index)) or ""
end

local function indexes(values)
  local listed, count = {}, values.count
  for place = 1, count < INDEXES_SHOWN and count or INDEXES_SHOWN do
    listed[place] = whole(values.indexes[place])
  end
  local more = count > INDEXES_SHOWN and format(PHRASES.more, whole(count - INDEXES_SHOWN)) or ""
  return concat(listed, ", ") .. more
end

local GOODBYE_BITS = {}
for bit in pairs(GOODBYE_FIELDS) do
  add(GOODBYE_BITS, bit)
end
sort(GOODBYE_BITS)

local function goodbye(values)
  local parts = {}
  for _, bit in ipairs(GOODBYE_BITS) do
    local name = GOODBYE_FIELDS[bit]
    if values[name] then
      add(parts, gsub(name, "_", " ") .. " " .. whole(values[name]))
    end
  end
  return concat(parts, ", ")
end

local function abort(values)
  return format(PHRASES.reason, whole(values.reason))
end

-- Names whose messages say more than their name.
local WRITERS = {
  Hello = hello,
  TimeResponse = function(values) return values.time and date("!" .. TIME_FORMAT, values.time) or "" end,
  Event = event,
  Subscribe = subscribe,
  Describe = function(values) return concat(values.flag_names or {}, ", ") end,
  DescribeResponse = describe,
  DescribePost = describe,
  FunctionCall = function(values)
    return name_text(values.name) .. "(" .. quote(concat(values.arguments, "&")) .. ")"
  end,
  FunctionReturn = function(values) return name_text(values.name) .. " = " .. whole(values.return_value) end,
  VariableRequest = function(values) return name_text(values.name) end,
  VariableValue = variable,
  Signal = function(values)
    if values.on == nil then
      return ""
    end
    return values.on and PHRASES.on or PHRASES.off
  end,
  UpdateBegin = update,
  SaveBegin = update,
  UpdateReady = function(values) return values.fast and PHRASES.fast or PHRASES.slow end,
  UpdateAbort = abort,
  Chunk = function(values) return chunk_index(values) .. (values.index and ", " or "") .. data_of_chunk(values) end,
  ChunkReceived = chunk_index,
  ChunkMissed = function(values)
    if values.count == 0 then
      return PHRASES.no_index
    end
    return format(values.count == 1 and PHRASES.chunk or PHRASES.chunks, indexes(values))
  end,
  Goodbye = goodbye,
}

-- Lines ----------------------------------------------------------------------------------------------------------

--- The message's name, with the code behind it when that is a refusal. Without a name: what can be said of the CoAP
-- message, or that its front is lost.
local function label(message)
  if message.name then
    return message.values.error and message.name .. " " .. message.values.error or message.name
  elseif not message.coap then
    return PHRASES.front_lost
  end
  return message.type .. " " .. message.code
end

local function unnamed(message)
  if message.values.anomalies then
    return format(PHRASES.not_coap, concat(message.values.anomalies, ", "))
  end
  local parts = {}
  if message.path ~= "" then
    add(parts, name_text(message.path))
  end
  if message.payload ~= "" then
    add(parts, size(#message.payload))
  end
  return concat(parts, ", ")
end

local function refusal(message)
  local values = message.values
  if values.habit then
    return values.harmless and PHRASES.habit_harmless or PHRASES.habit
  end
  local text = message.name == "UpdateAbort" and abort(values) or REFUSALS[message.name] or PHRASES.refused
  return message.code == values.error and text or format(PHRASES.miscoded, text, message.code)
end

--- What the message says, in one line of printable text; empty when its name says it all.
local function summary(message)
  local values = message.values
  if not message.coap then
    local count = #message.plaintext
    local left = count > 0 and format(PHRASES.left, size(count)) or PHRASES.nothing_left
    local lost = format(PHRASES.lost, whole(message.missing), left)
    return values.tail_text and lost .. ": " .. quote(values.tail_text) or lost
  elseif not message.name then
    return unnamed(message)
  elseif values.error then
    return refusal(message)
  end
  local write = WRITERS[message.name]
  -- A message of a kind that says something may be one that does not: a bare acknowledgement has no values.
  return write and message.value_order[1] and write(values) or ""
end

-- Wireshark's column ---------------------------------------------------------------------------------------------

local WORDS = {}

--- "DescribeResponse" as "Describe response".
local function words(name)
  local text = WORDS[name]
  if not text then
    text = gsub(name, "(%l)(%u)", function(before, first)
      return before .. " " .. lower(first)
    end)
    text = gsub(text, "^Ota ", "OTA ")
    WORDS[name] = text
  end
  return text
end

-- Names behind which the content follows as the rest of a phrase, not as remarks.
local PHRASED = {
  TimeResponse = true,
  Subscribe = true,
  FunctionCall = true,
  FunctionReturn = true,
  VariableRequest = true,
  VariableValue = true,
  Signal = true,
}

-- Where the column says less than the summary, or in another order: what stands behind the words of the name.
local INFO_WRITERS = {
  Hello = function(values)
    local parts = product(values)
    if values.platform_id then
      table.insert(parts, 1, platform(values))
    end
    return parts[1] and ", " .. concat(parts, ", ") or ""
  end,
  Event = function(values)
    local data = values.data
    if data then
      data = " = " .. (is_plain(data, LONGEST_INFO_QUOTE) and data or quote(data, LONGEST_INFO_QUOTE))
    end
    local remarks = {}
    if values.scope == "private" then
      add(remarks, values.scope)
    end
    if values.ttl ~= DEFAULT_TTL then
      add(remarks, whole(values.ttl) .. " s")
    end
    local remark = remarks[1] and " (" .. concat(remarks, ", ") .. ")" or ""
    return " " .. name_text(values.name) .. (data or "") .. remark
  end,
  Chunk = function(values)
    return (values.index and " " .. whole(values.index) or "") .. ", " .. data_of_chunk(values)
  end,
  ChunkReceived = function(values)
    return values.index and " " .. whole(values.index) or ""
  end,
  ChunkMissed = function(values)
    return values.count > 0 and " " .. indexes(values) or ", " .. PHRASES.no_index
  end,
}

--- `text` in at most 80 characters.
local function shortened(text)
  if #text <= LONGEST_INFO then
    return text
  end
  local at, kept = 1, nil
  for place = 1, LONGEST_INFO do
    if place == LONGEST_INFO - 2 then
      kept = at
    end
    local _, behind = character(text, at)
    at = behind
    if at > #text then
      return text
    end
  end
  return sub(text, 1, kept - 1) .. "..."
end

--- What Wireshark's Info column says about a message: "Event temp = 21.5 (private)", at most 80 characters.
local function info(message)
  local content
  if not message.coap then
    content = summary(message)
    return shortened(upper(sub(content, 1, 1)) .. sub(content, 2))
  end
  local name, values = message.name, message.values
  local head = label(message)
  if name then
    head = words(name) .. sub(head, #name + 1)
  end
  local write = INFO_WRITERS[name or ""]
  if write and not values.error and message.value_order[1] then
    return shortened(head .. write(values))
  end
  content = summary(message)
  if content == "" then
    return head
  end
  return shortened(head .. (PHRASED[name or ""] and not values.error and " " or ", ") .. content)
end

--- Any value of a message as printable text: lists and objects as JSON writes them, but cut short nowhere.
local function value_text(value)
  if type(value) == "number" then
    return value == floor(value) and math.abs(value) < 2 ^ 53 and whole(value) or real(value)
  elseif type(value) ~= "table" then
    return visible(tostring(value))
  elseif value == NULL then
    return "null"
  elseif value.digits then
    return value.digits
  end
  local parts = {}
  for _, key in ipairs(value.order or {}) do
    add(parts, visible(key) .. ": " .. value_text(value.fields[key]))
  end
  if value.order then
    return "{" .. concat(parts, ", ") .. "}"
  end
  for place, item in ipairs(value) do
    parts[place] = value_text(item)
  end
  return concat(parts, ", ")
end

spark.label, spark.summary, spark.info, spark.value_text = label, summary, info, value_text
spark.quote = quote
