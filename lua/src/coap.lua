-- Bytes to CoAP messages: RFC 7252 alone, without a word of what Spark means by them.
--
-- Bytes from the network never raise an error here. What cannot be read is left empty, and an anomaly says why.
-- A message whose version is not 1 or whose token length is reserved is not read any further, since nothing says
-- where its options would begin.
--
-- Text in values is UTF-8 with U+FFFD for what is not, as in the Python analyzer; raw bytes stay in the message.

local constants = spark.constants
local ANOMALIES = constants.coap.ANOMALIES
local HARMLESS = constants.coap.HARMLESS
local HEADER_SIZE = constants.coap.HEADER_SIZE
local LONGEST_TOKEN = constants.coap.LONGEST_TOKEN
local PAYLOAD_MARKER = constants.coap.PAYLOAD_MARKER
local LARGEST_OPTION_NUMBER = constants.coap.LARGEST_OPTION_NUMBER
local URI_PATH = constants.coap.URI_PATH
local URI_QUERY = constants.coap.URI_QUERY
local EMPTY = constants.coap.EMPTY
local ACK = constants.coap.ACK
local REMEMBERED_RUNS = constants.coap.REMEMBERED_RUNS
local LONGEST_REMEMBERED_RUN = constants.coap.LONGEST_REMEMBERED_RUN
local BLOCK = constants.catalogue.BLOCK

local byte, find, format, rep, sub = string.byte, string.find, string.format, string.rep, string.sub
local concat, floor = table.concat, math.floor

-- UTF-8 ----------------------------------------------------------------------------------------------------------

local REPLACEMENT = "\239\191\189" -- U+FFFD

--- The character at byte `at` of `text` (1-based): its code point and the byte behind it. When the bytes there are no
-- character: nil and the byte behind the longest beginning of one, which is what one U+FFFD stands for (Unicode 3.9).
local function character(text, at)
  local first, second, third, fourth = byte(text, at, at + 3)
  if first < 0x80 then
    return first, at + 1
  elseif first < 0xC2 or first > 0xF4 then
    return nil, at + 1
  end
  -- The second byte's range is what keeps overlong forms, surrogates and numbers above 10FFFF out.
  local least, most = 0x80, 0xBF
  if first == 0xE0 then
    least = 0xA0
  elseif first == 0xED then
    most = 0x9F
  elseif first == 0xF0 then
    least = 0x90
  elseif first == 0xF4 then
    most = 0x8F
  end
  if not second or second < least or second > most then
    return nil, at + 1
  elseif first < 0xE0 then
    return (first - 0xC0) * 0x40 + second - 0x80, at + 2
  elseif not third or third < 0x80 or third > 0xBF then
    return nil, at + 2
  elseif first < 0xF0 then
    return (first - 0xE0) * 0x1000 + (second - 0x80) * 0x40 + third - 0x80, at + 3
  elseif not fourth or fourth < 0x80 or fourth > 0xBF then
    return nil, at + 3
  end
  return (first - 0xF0) * 0x40000 + (second - 0x80) * 0x1000 + (third - 0x80) * 0x40 + fourth - 0x80, at + 4
end

--- `raw` as text: itself when it is UTF-8, otherwise with U+FFFD for what is not.
local function to_text(raw)
  local at = find(raw, "[\128-\255]")
  if not at then
    return raw
  end
  local pieces, count, kept, size = {}, 0, 1, #raw
  while at and at <= size do
    local code, behind = character(raw, at)
    if not code then
      pieces[count + 1] = sub(raw, kept, at - 1)
      pieces[count + 2] = REPLACEMENT
      count, kept = count + 2, behind
    end
    at = find(raw, "[\128-\255]", behind)
  end
  if count == 0 then
    return raw
  end
  pieces[count + 1] = sub(raw, kept)
  return concat(pieces)
end

-- Characters beyond ASCII that are shown as they are: letters, marks and signs of the scripts most in use, in ranges
-- without a hole. Python shows every character that its tables of Unicode call printable; here a character of another
-- range comes out escaped. What no range may have: controls, spaces of other widths, direction marks, unassigned,
-- characters that join the one before them, fillers that show nothing.
local PRINTABLE = {
  { 0x00A1, 0x00AC }, { 0x00AE, 0x02FF }, { 0x0370, 0x0377 }, -- Latin with its accents, phonetic letters
  { 0x0384, 0x038A }, { 0x038E, 0x03A1 }, { 0x03A3, 0x052F }, -- Greek, Cyrillic
  { 0x1E00, 0x1F15 }, -- more Latin, first of the older Greek
  { 0x2010, 0x2027 }, { 0x2030, 0x205E }, { 0x20A0, 0x20C0 }, { 0x2100, 0x218B }, -- dashes, quotes, currencies
  { 0x2190, 0x2426 }, { 0x2500, 0x27FF }, { 0x2801, 0x2B73 }, -- arrows, mathematics, boxes, shapes
  { 0x3001, 0x303F }, { 0x3041, 0x3096 }, { 0x3099, 0x30FF }, -- punctuation of East Asia, Japanese
  { 0x3400, 0x4DBF }, { 0x4E00, 0x9FFC }, { 0xAC00, 0xD7A3 }, -- Han, Korean
  { 0xFF01, 0xFF9F }, { 0xFFA1, 0xFFBE }, { 0xFFFC, 0xFFFD }, -- letters of full width, the replacement character
  { 0x1F300, 0x1F6D7 }, { 0x1F900, 0x1F9CB }, -- pictures
}

--- Whether a character can be shown as it is.
local function is_printable(code)
  if code < 0x7F then
    return code >= 0x20
  end
  for index = 1, #PRINTABLE do
    local range = PRINTABLE[index]
    if code <= range[2] then
      return code >= range[1]
    end
  end
  return false
end

--- Text with everything escaped that could act on a screen or does not print; `also` is a pattern of ASCII characters
-- that get a backslash. Bytes that are no UTF-8 are escaped one by one. At most `most` characters of the text are
-- used; the second result tells whether that left some out.
local function escaped(text, also, most)
  local pieces, count, at, size = {}, 0, 1, #text
  while at <= size and count < most do
    local code, behind = character(text, at)
    local shown
    if not code then
      behind = at + 1
      shown = format("\\x%02x", byte(text, at))
    elseif is_printable(code) then
      shown = sub(text, at, behind - 1)
      if also and find(shown, also) then
        shown = "\\" .. shown
      end
    elseif code < 0x100 then
      shown = format("\\x%02x", code)
    else
      shown = format(code < 0x10000 and "\\u%04x" or "\\U%08x", code)
    end
    count = count + 1
    pieces[count] = shown
    at = behind
  end
  return concat(pieces), at <= size
end

--- Text from the network as it may be shown anywhere.
local function visible(text)
  if not find(text, "[^ -~]") then
    return text
  end
  return (escaped(text, nil, #text))
end

-- Options --------------------------------------------------------------------------------------------------------

--- Put what is asked of every message's options beside them, so that a remembered run answers at once: `path` (text),
-- `queries` (raw), `letter` (the first Uri-Path as a number when it is one byte and the first option) and `name` (what
-- stands behind the letter: the name of an event, function or variable).
local function explained(options)
  local path, queries, paths, asked = {}, {}, 0, 0
  for index = 1, #options do
    local option = options[index]
    if option[1] == URI_PATH then
      paths = paths + 1
      path[paths] = option[2]
    elseif option[1] == URI_QUERY then
      asked = asked + 1
      queries[asked] = option[2]
    end
  end
  options.queries = queries
  options.path = paths == 1 and to_text(path[1]) or to_text(concat(path, "/"))
  local first, second = options[1], options[2]
  if first and first[1] == URI_PATH and #first[2] == 1 then
    options.letter = byte(first[2])
  end
  options.name = ""
  if second and second[1] == URI_PATH then
    -- The options are in order of their numbers, so a path that has a second segment begins with the first option or
    -- the second, and the name begins with the second.
    options.name = to_text(concat(path, "/", first[1] == URI_PATH and 2 or 1))
  end
  return options
end

--- Read options from byte `at` (1-based) on; return them, the byte of the marker or the one behind the end, and what
-- stopped the reading. Each turn consumes at least a byte, so the time is linear. Behind an anomaly nothing can be
-- told apart: there is no payload then.
local function read_options(data, at)
  local behind = #data + 1
  local number, count, options = 0, 0, {}
  while at < behind do
    local head = byte(data, at)
    if head == PAYLOAD_MARKER then
      return explained(options), at
    end
    at = at + 1
    local length = head % 16
    local delta = floor(head / 16)
    if delta == 15 or length == 15 then
      return explained(options), behind, ANOMALIES.RESERVED_OPTION_NIBBLE
    end
    -- A cut extension reads as zero, but then `at` is already past the end.
    if delta == 13 then
      delta, at = 13 + (byte(data, at) or 0), at + 1
    elseif delta == 14 then
      local high, low = byte(data, at, at + 1)
      delta, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    if length == 13 then
      length, at = 13 + (byte(data, at) or 0), at + 1
    elseif length == 14 then
      local high, low = byte(data, at, at + 1)
      length, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    if at + length > behind then
      return explained(options), behind, ANOMALIES.OPTION_PAST_END
    end
    number = number + delta
    if number > LARGEST_OPTION_NUMBER then
      return explained(options), behind, ANOMALIES.OPTION_NUMBER_TOO_LARGE
    end
    count = count + 1
    options[count] = { number, sub(data, at, at + length - 1) }
    at = at + length
  end
  return explained(options), behind
end

-- Messages -------------------------------------------------------------------------------------------------------

local NO_OPTIONS = explained({})
local NO_ANOMALIES = {}

local runs, remembered = { [""] = NO_OPTIONS }, 1

-- The first byte as version and type, so that nothing is divided per message.
local VERSION, TYPE = {}, {}
for first = 0, 255 do
  VERSION[first], TYPE[first] = floor(first / 64), floor(first / 16) % 4
end

local function unreadable(first, code, message_id, anomaly)
  return {
    version = VERSION[first],
    type = TYPE[first],
    code = code,
    message_id = message_id,
    token = "",
    options = NO_OPTIONS,
    payload = "",
    anomalies = { anomaly },
  }
end

--- Read one whole CoAP message: { version, type (0 CON, 1 NON, 2 ACK, 3 RST), code (0x45 is 2.05), message_id, token,
-- options, payload, anomalies (array of phrases) }. `options` is an array of { number, raw value } in wire order that
-- also carries `path`, `queries`, `letter` and `name` (see above); messages may share it, so it is only read.
-- `payload` is "" both without a marker and with an empty payload, which `anomalies` tells apart.
local function decode(data)
  local size = #data
  local first, code, high, low = byte(data, 1, HEADER_SIZE)
  if not low then
    return unreadable(first or 0, code or 0, 0, ANOMALIES.TRUNCATED)
  end
  local message_id = high * 256 + low
  local token_size = first % 16
  local token_end = HEADER_SIZE + token_size
  if VERSION[first] ~= 1 then
    return unreadable(first, code, message_id, ANOMALIES.BAD_VERSION)
  elseif token_size > LONGEST_TOKEN then
    return unreadable(first, code, message_id, ANOMALIES.RESERVED_TOKEN_LENGTH)
  elseif token_end > size then
    return unreadable(first, code, message_id, ANOMALIES.TRUNCATED)
  end
  local kind, options, payload, anomalies = TYPE[first], NO_OPTIONS, "", NO_ANOMALIES
  if size > token_end then
    -- The bytes up to the first FF are a whole run of options, or that FF lies inside an option's value. Only runs
    -- that were read to their exact end are remembered, so a hit settles which of the two it is.
    local marker = find(data, "\255", token_end + 1, true) or size + 1
    local run = sub(data, token_end + 1, marker - 1)
    options = runs[run]
    if not options then
      local read_to, anomaly
      options, read_to, anomaly = read_options(data, token_end + 1)
      if anomaly then
        anomalies = { anomaly }
      elseif read_to == marker and #run <= LONGEST_REMEMBERED_RUN then
        if remembered >= REMEMBERED_RUNS then
          runs, remembered = { [""] = NO_OPTIONS }, 1
        end
        runs[run], remembered = options, remembered + 1
      end
      marker = read_to
    end
    if marker < size then
      payload = sub(data, marker + 1)
    elseif marker == size then
      anomalies = { ANOMALIES.EMPTY_PAYLOAD }
    end
  end
  if code == EMPTY and size > HEADER_SIZE then
    local lone_token = kind == ACK and size == token_end and token_size == 1
    local last = lone_token and ANOMALIES.EMPTY_ACK_WITH_TOKEN or ANOMALIES.EMPTY_WITH_BYTES
    anomalies = { anomalies[1] or last, anomalies[1] and last }
  end
  return {
    version = 1,
    type = kind,
    code = code,
    message_id = message_id,
    token = token_size == 0 and "" or sub(data, HEADER_SIZE + 1, token_end),
    options = options,
    payload = payload,
    anomalies = anomalies,
  }
end

--- Whether everything was read to the end; harmless deviations of genuine peers do not count.
local function well_formed(coap)
  local anomalies = coap.anomalies
  for index = 1, #anomalies do
    if not HARMLESS[anomalies[index]] then
      return false
    end
  end
  return true
end

--- What is left of a message whose first `missing` bytes could not be decrypted (PROTOCOL 4.5): { missing, data,
-- possible_marker, text }. `possible_marker` is the offset in `data` (from 0) of the first FF, or nil; by the RFC alone
-- nobody can tell where the payload begins. `text` is `data` when all of it is printable UTF-8.
local function decode_tail(data, missing)
  local marker = find(data, "\255", 1, true)
  return {
    missing = missing,
    data = data,
    possible_marker = marker and marker - 1,
    text = data ~= "" and visible(data) == data and data or nil,
  }
end

-- What judges a decryption ---------------------------------------------------------------------------------------

local PADDINGS = {}
for count = 1, BLOCK do
  PADDINGS[count] = rep(string.char(count), count)
end

--- The plaintext without its PKCS#7 padding, or nil unless every padding byte is right (PROTOCOL 4.4).
local function without_padding(opened)
  local size = #opened
  local count = byte(opened, size)
  local padding = PADDINGS[count or 0]
  if not padding or sub(opened, -count) ~= padding then
    return nil
  end
  return sub(opened, 1, size - count)
end

--- Whether the bytes are one CoAP message, version 1, whose options end where they should. It allows what the servers'
-- own builders get wrong: an empty message with a token, a marker with nothing behind it, reserved codes.
local function is_whole_coap(message)
  local size = #message
  local first = byte(message)
  if size < HEADER_SIZE or VERSION[first] ~= 1 or first % 16 > LONGEST_TOKEN then
    return false
  end
  local at = HEADER_SIZE + first % 16 + 1
  if at == size + 1 then
    return true
  elseif at > size then
    return false
  end
  local marker = find(message, "\255", at, true) or size + 1
  if runs[sub(message, at, marker - 1)] then
    return true
  end
  while at <= size do
    local head = byte(message, at)
    at = at + 1
    if head == PAYLOAD_MARKER then
      return true
    end
    local length = head % 16
    if length == 15 or head >= 0xF0 then
      return false
    end
    if head >= 0xE0 then
      at = at + 2
    elseif head >= 0xD0 then
      at = at + 1
    end
    if length == 13 then
      length, at = 13 + (byte(message, at) or 0), at + 1
    elseif length == 14 then
      local high, low = byte(message, at, at + 1)
      length, at = 269 + (low and high * 256 + low or 0), at + 2
    end
    at = at + length
  end
  return at == size + 1
end

spark.character, spark.to_text = character, to_text
spark.is_printable, spark.escaped, spark.visible = is_printable, escaped, visible
spark.coap = { decode = decode, well_formed = well_formed, decode_tail = decode_tail }
spark.without_padding = without_padding
spark.is_whole_coap = is_whole_coap
