-- Decrypted bytes to named messages: finds each one's row in the table of messages, reads its values, and pairs answers
-- with requests.
--
-- A request is known by code and the first letter of its path, as its receiver knows it (PROTOCOL 5.2). Answers have no
-- path: an ACK belongs to the other side's request of that id, a separate response to that of its token.
--
-- Values are named as in the Python analyzer; `value_order` names those that a message of its kind has, in order, and
-- the ones that are nil tell nothing. Both tables may be shared between messages, so they are only read. A number that
-- does not fit into 32 bits is text, "0x1234567890".

local constants = spark.constants
local decode, well_formed, decode_tail = spark.coap.decode, spark.coap.well_formed, spark.coap.decode_tail
local to_text, read_description = spark.to_text, spark.read_description

local ACK, CON, NON, RST = constants.coap.ACK, constants.coap.CON, constants.coap.NON, constants.coap.RST
local EMPTY = constants.coap.EMPTY
local CODES, CODE_TEXTS, TYPE_NAMES = constants.coap.CODES, constants.coap.CODE_TEXTS, constants.coap.TYPE_NAMES
local MAX_AGE = constants.coap.MAX_AGE
local EMPTY_PAYLOAD = constants.coap.ANOMALIES.EMPTY_PAYLOAD

local MESSAGES = constants.message_table.MESSAGES
local DEVICE, SERVER = constants.message_table.DEVICE, constants.message_table.SERVER
local METRICS_PREFIX = constants.message_table.METRICS_PREFIX
local MISCODED_ERRORS = constants.message_table.MISCODED_ERRORS
local SYSTEM_EVENT_PREFIX = constants.message_table.SYSTEM_EVENT_PREFIX
local DEFAULT_TTL = constants.message_table.DEFAULT_TTL
local FAST_UPDATE = constants.message_table.FAST_UPDATE
local HELLO_FLAGS = constants.message_table.HELLO_FLAGS
local DESCRIBE_FLAGS = constants.message_table.DESCRIBE_FLAGS
local GOODBYE_FIELDS = constants.message_table.GOODBYE_FIELDS
local PLATFORMS = constants.message_table.PLATFORMS
local UPDATE_STORES = constants.message_table.UPDATE_STORES
local VARIABLE_SIZES = constants.message_table.VARIABLE_SIZES
local ACK_OF_UNKNOWN = constants.message_table.ACK_OF_UNKNOWN.name
local ERROR_ACK_OF_UNKNOWN = constants.message_table.ERROR_ACK_OF_UNKNOWN.name
local RESPONSE_TO_UNKNOWN = constants.message_table.RESPONSE_TO_UNKNOWN.name
local ERROR_RESPONSE_TO_UNKNOWN = constants.message_table.ERROR_RESPONSE_TO_UNKNOWN.name

local OTHER_SIDE = constants.messages.routes.OTHER_SIDE
local FIRST_RESPONSE = constants.messages.routes.FIRST_RESPONSE
local BEHIND_SUCCESS = constants.messages.routes.BEHIND_SUCCESS
local FIRST_ERROR = constants.messages.routes.FIRST_ERROR
local BEHIND_ERRORS = constants.messages.routes.BEHIND_ERRORS
local CHANGED = constants.messages.routes.CHANGED
local MISCODED = constants.messages.routes.MISCODED

local HELLO_3X_SIZE = constants.messages.values.HELLO_3X_SIZE
local MOST_CHUNK_INDEXES = constants.messages.values.MOST_CHUNK_INDEXES
local LONGEST_VARINT = constants.messages.values.LONGEST_VARINT

local CORE, PHOTON = constants.messages.peers.CORE, constants.messages.peers.PHOTON
local P1, ELECTRON = constants.messages.peers.P1, constants.messages.peers.ELECTRON
local LEGACY, COMMUNITY = constants.messages.peers.LEGACY, constants.messages.peers.COMMUNITY
local HIGH_FIRST, LOW_FIRST = constants.messages.peers.HIGH_FIRST, constants.messages.peers.LOW_FIRST
local EITHER_ORDER, NEITHER_ORDER = constants.messages.peers.EITHER_ORDER, constants.messages.peers.NEITHER_ORDER
local G2B, G2B_OR_G2C = constants.messages.peers.G2B, constants.messages.peers.G2B_OR_G2C
local WITHOUT_PLATFORM = constants.messages.peers.WITHOUT_PLATFORM
local WITH_3X_HELLO = constants.messages.peers.WITH_3X_HELLO
local LATER_CORE = constants.messages.peers.LATER_CORE
local UNFLAGGED_PHOTON = constants.messages.peers.UNFLAGGED_PHOTON
local DIAGNOSING_PHOTON = constants.messages.peers.DIAGNOSING_PHOTON
local LAST_SEPARATE_PHOTON = constants.messages.peers.LAST_SEPARATE_PHOTON
local PHOTON_BY_FLAG = constants.messages.peers.PHOTON_BY_FLAG
local IGNORES_REFUSALS = constants.messages.peers.IGNORES_REFUSALS

local MOST_OUTSTANDING = constants.messages.reader.MOST_OUTSTANDING
local DESCRIPTIONS = constants.messages.reader.DESCRIPTIONS

local byte, format, gsub, lower, sub =
  string.byte, string.format, string.gsub, string.lower, string.sub
local floor, ipairs, setmetatable, sort = math.floor, ipairs, setmetatable, table.sort

-- Values: one small function for each kind of message, which returns the values and their names -------------------

--- The big-endian number of 1, 2 or 4 bytes at `at` (from 0), or nil when the payload ends before it does.
local function number8(payload, at)
  return byte(payload, at + 1)
end

local function number16(payload, at)
  local high, low = byte(payload, at + 1, at + 2)
  return low and high * 0x100 + low
end

local function number32(payload, at)
  local first, second, third, fourth = byte(payload, at + 1, at + 4)
  return fourth and first * 0x1000000 + second * 0x10000 + third * 0x100 + fourth
end

--- The big-endian number in all of `raw`.
local function whole_number(raw)
  if #raw > 4 then
    raw = gsub(raw, "^%z+", "")
    if #raw > 4 then
      local digits = gsub(raw, ".", function(one)
        return format("%02x", byte(one))
      end)
      return "0x" .. gsub(digits, "^0", "")
    end
  end
  local number = 0
  for at = 1, #raw do
    number = number * 0x100 + byte(raw, at)
  end
  return number
end

local function has_bit(flags, bit)
  return floor(flags / bit) % 2 == 1
end

local function ascending(names)
  local bits = {}
  for bit in pairs(names) do
    bits[#bits + 1] = bit
  end
  sort(bits)
  return bits
end

local HELLO_BITS, DESCRIBE_BITS, GOODBYE_BITS =
  ascending(HELLO_FLAGS), ascending(DESCRIBE_FLAGS), ascending(GOODBYE_FIELDS)

local function flag_names(flags, bits, names)
  local set = {}
  for _, bit in ipairs(bits) do
    if has_bit(flags, bit) then
      set[#set + 1] = names[bit]
    end
  end
  return set
end

local HELLO = {
  "product_id", "firmware_version", "flags", "flag_names", "platform_id", "platform", "device_id_length",
  "system_version", "largest_message", "largest_binary", "ota_chunk_size",
}

--- A device's Hello (7.1). Fields that its generation does not send are nil.
local function device_hello(coap)
  local payload = coap.payload
  local flags, platform = number8(payload, 5), number16(payload, 6)
  if flags and #payload >= HELLO_3X_SIZE then
    flags = flags + number8(payload, 4) * 0x100
  end
  return {
    product_id = number16(payload, 0),
    firmware_version = number16(payload, 2),
    flags = flags,
    flag_names = flags and flag_names(flags, HELLO_BITS, HELLO_FLAGS),
    platform_id = platform,
    platform = platform and PLATFORMS[platform],
    device_id_length = number8(payload, 9),
    system_version = number16(payload, 10),
    largest_message = number16(payload, 12),
    largest_binary = number32(payload, 14),
    ota_chunk_size = number16(payload, 18),
  }, HELLO
end

local PRIVATE_EVENT = byte("E")
local EVENT = { "name", "data", "ttl", "scope" }

--- An event of either side (5.4.5, 5.4.7). `data` is nil when the event has none.
local function event(coap)
  local options, payload, ttl = coap.options, coap.payload, DEFAULT_TTL
  for index = 2, #options do
    local option = options[index]
    if option[1] == MAX_AGE then
      ttl = whole_number(option[2])
    end
  end
  local data
  if payload ~= "" or coap.anomalies[1] == EMPTY_PAYLOAD then
    data = to_text(payload)
  end
  return {
    name = options.name,
    data = data,
    ttl = ttl,
    scope = options.letter == PRIVATE_EVENT and "private" or "public",
  }, EVENT
end

local SUBSCRIBE = { "prefix", "scope", "device_id" }

--- A subscription (5.4.8): by prefix, to all devices, the owner's, or one.
local function subscribe(coap)
  local scope = "all"
  for _, query in ipairs(coap.options.queries) do
    if query == "u" then
      scope = "mine"
    end
  end
  return {
    prefix = coap.options.name,
    scope = scope,
    device_id = coap.payload ~= "" and to_text(coap.payload) or nil,
  }, SUBSCRIBE
end

local NAME = { "name" }

--- A request that only names something (5.4.11).
local function name_alone(coap)
  return { name = coap.options.name }, NAME
end

local FUNCTION_CALL = { "name", "argument", "arguments" }

--- A call (5.4.10). The device reads the first argument only; the legacy server splits at every "&".
local function function_call(coap)
  local arguments = {}
  for index, query in ipairs(coap.options.queries) do
    arguments[index] = to_text(query)
  end
  return { name = coap.options.name, argument = arguments[1] or "", arguments = arguments }, FUNCTION_CALL
end

local DESCRIBE = { "flags", "flag_names" }

--- A Describe request: the flags of its query, nil when it has none (5.4.9).
local function describe_request(coap)
  local query = coap.options.queries[1]
  local flags = query and (byte(query) or 0)
  return { flags = flags, flag_names = flags and flag_names(flags, DESCRIBE_BITS, DESCRIBE_FLAGS) }, DESCRIBE
end

local function description(coap)
  return read_description(coap.payload)
end

local DESCRIBE_POST -- the names of both, once those of a description are known

--- A description that the device sends unasked.
local function describe_post(coap)
  local values = describe_request(coap)
  local told, names = read_description(coap.payload)
  if not DESCRIBE_POST then
    DESCRIBE_POST = { DESCRIBE[1], DESCRIBE[2] }
    for _, name in ipairs(names) do
      DESCRIBE_POST[#DESCRIBE_POST + 1] = name
    end
  end
  told.flags, told.flag_names = values.flags, values.flag_names
  return told, DESCRIBE_POST
end

local SIGNAL = { "on" }

--- A Signal: on unless the query is a zero byte, as the device takes it (5.2).
local function signal(coap)
  local query = coap.options.queries[1] or ""
  if query == "" then
    return {}, SIGNAL
  end
  return { on = byte(query) ~= 0 }, SIGNAL
end

local TIME = { "time" }

--- The time: seconds since 1970 UTC (5.4.4).
local function time_response(coap)
  return { time = number32(coap.payload, 0) }, TIME
end

local UPDATE_BEGIN = { "flags", "fast_offered", "chunk_size", "file_length", "store", "store_name", "address" }

--- The announcement of an update (5.5); all nil in the legacy server's last try, which is empty.
local function update_begin(coap)
  local payload = coap.payload
  local flags, store = number8(payload, 0), number8(payload, 7)
  local fast_offered
  if flags then
    fast_offered = has_bit(flags, FAST_UPDATE)
  end
  return {
    flags = flags,
    fast_offered = fast_offered,
    chunk_size = number16(payload, 1),
    file_length = number32(payload, 3),
    store = store,
    store_name = store and UPDATE_STORES[store],
    address = number32(payload, 8),
  }, UPDATE_BEGIN
end

local UPDATE_READY = { "flags", "fast" }

--- The flags of a device that is ready; early Cores send none and know only the slow form (5.5).
local function update_ready(coap)
  local flags = number8(coap.payload, 0)
  return { flags = flags, fast = flags ~= nil and has_bit(flags, FAST_UPDATE) }, UPDATE_READY
end

local UPDATE_ABORT = { "reason" }

local function update_abort(coap)
  return { reason = number8(coap.payload, 0) }, UPDATE_ABORT
end

--- CRC-32 (zlib's), four bytes a turn: the tables hold what a byte makes of the sum 0 to 3 bytes later.
local crc32 = spark.bits.compile(
  [[ return function(bits)
    local byte = string.byte
    local T0, T1, T2, T3 = {}, {}, {}, {}
    for index = 0, 255 do
      local sum = index
      for _ = 1, 8 do
        local odd = bits.band(sum, 1) == 1
        sum = bits.rshift(sum, 1)
        if odd then sum = bits.bxor(sum, 0xEDB88320) end
      end
      T0[index] = sum
    end
    for index = 0, 255 do
      local one = bits.bxor(T0[bits.band(T0[index], 255)], bits.rshift(T0[index], 8))
      local two = bits.bxor(T0[bits.band(one, 255)], bits.rshift(one, 8))
      T1[index], T2[index] = one, two
      T3[index] = bits.bxor(T0[bits.band(two, 255)], bits.rshift(two, 8))
    end
    return function(data)
      local sum, size = 0xFFFFFFFF, #data
      local last = size - size % 4
      for at = 1, last, 4 do
        local first, second, third, fourth = byte(data, at, at + 3)
        local word = XOR(sum, first + second * 0x100 + third * 0x10000 + fourth * 0x1000000)
        SPLIT(word, a, b, c, d)
        sum = XOR(T3[d], T2[c], T1[b], T0[a])
      end
      for at = last + 1, size do
        SPLIT(sum, a, b, c, d)
        sum = XOR(T0[XOR(d, byte(data, at))], a * 0x10000 + b * 0x100 + c)
      end
      return XOR(sum, 0xFFFFFFFF) % 0x100000000
    end
  end ]],
  "crc32"
)(spark.bits)

local CHUNK = { "crc", "crc_ok", "index", "size" }

--- A chunk (5.5): the CRC it announces, whether its data has it, and in the fast form its index.
local function chunk(coap)
  local queries, payload = coap.options.queries, coap.payload
  local crc, crc_ok = queries[1] and whole_number(queries[1]), nil
  if crc then
    crc_ok = crc32(payload) == crc
  end
  return {
    crc = crc,
    crc_ok = crc_ok,
    index = queries[2] and whole_number(queries[2]),
    size = #payload,
  }, CHUNK
end

local CHUNK_MISSED = { "indexes", "count" }

--- The indexes that a device asks for again; half an index at the end is left out.
local function chunk_missed(coap)
  local payload, indexes = coap.payload, {}
  local count = floor(#payload / 2)
  for index = 1, count < MOST_CHUNK_INDEXES and count or MOST_CHUNK_INDEXES do
    indexes[index] = number16(payload, index * 2 - 2)
  end
  return { indexes = indexes, count = count }, CHUNK_MISSED
end

local UPDATE_DONE = { "modules" }

--- The end of an update, with the new modules where the device sends them (5.5).
local function update_done(coap)
  return { modules = coap.payload ~= "" and read_description(coap.payload).modules or nil }, UPDATE_DONE
end

--- The unsigned LEB128 number at byte `at`, and the byte behind it; nil when it is cut or longer than 64 bits need.
local function varint(payload, at)
  -- Four bytes of it are seven hexadecimal digits: no part becomes too large to be exact.
  local parts, place, weight = { 0, 0, 0 }, 1, 1
  for position = 0, LONGEST_VARINT - 1 do
    local one = byte(payload, at + position)
    if not one then
      break
    end
    if position > 0 and position % 4 == 0 then
      place, weight = place + 1, 1
    end
    parts[place] = parts[place] + one % 0x80 * weight
    weight = weight * 0x80
    if one < 0x80 then
      local low = parts[1] + parts[2] * 0x10000000
      if parts[3] == 0 and low < 0x100000000 then
        return low, at + position + 1
      end
      local digits = gsub(format("%x%07x%07x", parts[3], parts[2], parts[1]), "^0+", "")
      return "0x" .. digits, at + position + 1
    end
  end
  return nil, #payload + 1
end

local GOODBYE = { "flags" }
for _, bit in ipairs(GOODBYE_BITS) do
  GOODBYE[#GOODBYE + 1] = GOODBYE_FIELDS[bit]
end

--- A Goodbye's reasons (5.4.15); those that its flags do not announce are nil.
local function goodbye(coap)
  local payload = coap.payload
  local told = {}
  local flags, at = varint(payload, 1)
  told.flags = flags
  -- Flags of more than 32 bits are text, but the bits that mean something are all in the first byte.
  local meant = flags and byte(payload) or 0
  for _, bit in ipairs(GOODBYE_BITS) do
    if has_bit(meant, bit) then
      told[GOODBYE_FIELDS[bit]], at = varint(payload, at)
    end
  end
  return told, GOODBYE
end

--- The little-endian IEEE 754 double in 8 bytes; "inf", "-inf" or "nan" where there is no number.
local function double(payload)
  local a, b, c, d, e, f, g, h = byte(payload, 1, 8)
  local sign = h < 0x80 and 1 or -1
  local exponent = h % 0x80 * 0x10 + floor(g / 0x10)
  local fraction = ((((((g % 0x10 * 0x100 + f) * 0x100 + e) * 0x100 + d) * 0x100 + c) * 0x100 + b) * 0x100 + a)
  if exponent == 0x7FF then
    return fraction ~= 0 and "nan" or sign > 0 and "inf" or "-inf"
  elseif exponent == 0 then
    return sign * (fraction * 2.0 ^ -1074)
  end
  return sign * ((fraction + 2.0 ^ 52) * 2.0 ^ (exponent - 1075))
end

local function signed32(payload)
  local number = number32(payload, 0)
  return number < 0x80000000 and number or number - 0x100000000
end

--- A variable's value and its type (5.4.11). `declared` is the type that a Describe gave it, or nil: then its length
-- decides, which cannot tell four bytes of text from an int. The value is nil when the payload does not have the length
-- of a declared type.
local function variable_value(payload, declared)
  local size = #payload
  local kind = declared or VARIABLE_SIZES[size] or "string"
  if not declared and kind == "bool" and byte(payload) > 1 then
    kind = "string"
  end
  local value
  if kind == "bool" and size == 1 then
    value = byte(payload) ~= 0
  elseif kind == "int32" and size == 4 then
    value = signed32(payload)
  elseif kind == "double" and size == 8 then
    value = double(payload)
  elseif kind == "string" then
    value = to_text(payload)
  end
  return kind, value
end

local FUNCTION_RETURN = { "name", "return_value" }

--- What the function `name` returned: a signed 32-bit number (5.4.10).
local function function_return(coap, name)
  return { name = name, return_value = #coap.payload == 4 and signed32(coap.payload) or nil }, FUNCTION_RETURN
end

-- A VariableValue needs what a Describe said before; messages that are not listed say nothing beyond their name.
local READERS = {
  [DEVICE] = {
    Hello = device_hello,
    Goodbye = goodbye,
    Event = event,
    Subscribe = subscribe,
    DescribeResponse = description,
    DescribePost = describe_post,
    FunctionReturn = function_return,
    UpdateReady = update_ready,
    UpdateAbort = update_abort,
    ChunkMissed = chunk_missed,
    UpdateDone = update_done,
    UpdateDoneAck = update_done,
  },
  [SERVER] = {
    TimeResponse = time_response,
    Event = event,
    Describe = describe_request,
    FunctionCall = function_call,
    VariableRequest = name_alone,
    Signal = signal,
    UpdateBegin = update_begin,
    SaveBegin = update_begin,
    Chunk = chunk,
  },
}

-- Routes: the rows of the table, made ready for looking up the row of a message -----------------------------------

local TYPE_OF = {}
for index, name in ipairs(TYPE_NAMES) do
  TYPE_OF[name] = index - 1
end

--- Type and code in one number, for each pair that a row has.
local function looks_of(spec)
  local looks = {}
  for _, kind in ipairs(spec.types) do
    for _, code in ipairs(spec.codes) do
      looks[#looks + 1] = TYPE_OF[kind] * 0x100 + CODES[code]
    end
  end
  return looks
end

local ROUTES, BY_PATH, ANSWERS = {}, {}, {} -- sender to what is looked up there
for _, sender in ipairs({ DEVICE, SERVER }) do
  ROUTES[sender], BY_PATH[sender], ANSWERS[sender] = {}, {}, {}
end

--- A row as one sender uses it. `answers` is looks to the row of an answer; `ack` and `separate` are the rows for
-- answers that look like none of these; `by_id` and `by_token` tell by what an answer is recognised.
local function new_route(spec, sender)
  return {
    name = spec.name,
    spec = spec,
    looks = looks_of(spec),
    repeats = spec.repeats,
    read = READERS[sender] and READERS[sender][spec.name],
    answers = {},
    has_content = not (#spec.types == 1 and spec.types[1] == "ACK"),
    by_id = false,
    by_token = false,
  }
end

-- Stands in for a confirmable message that is in no row, so that its acknowledgement still finds it.
local UNNAMED = new_route({ types = {}, codes = {} }, nil)

local function has(list, value)
  for _, one in ipairs(list) do
    if one == value then
      return true
    end
  end
  return false
end

--- Let a route know the rows that answer it.
local function link(route, answers)
  for _, answer in ipairs(answers) do
    for _, key in ipairs(answer.looks) do
      route.answers[key] = route.answers[key] or answer
    end
    if has(answer.spec.types, "ACK") then
      route.ack = route.ack or answer
    end
    if answer.has_content then
      route.separate = route.separate or answer
    end
  end
  route.by_id = route.ack ~= nil
  route.by_token = route.separate ~= nil
end

local function fill_tables()
  for _, spec in ipairs(MESSAGES) do
    for _, sender in ipairs(spec.senders) do
      ROUTES[sender][spec.name] = new_route(spec, sender)
    end
  end
  for _, spec in ipairs(MESSAGES) do
    for _, sender in ipairs(spec.senders) do
      local route, other, answers = ROUTES[sender][spec.name], OTHER_SIDE[sender], {}
      for index, name in ipairs(spec.answered_by) do
        answers[index] = ROUTES[other][name]
      end
      link(route, answers)
      for _, code in ipairs(spec.codes) do
        for at = 1, #spec.path do
          BY_PATH[sender][CODES[code] * 0x100 + byte(spec.path, at)] = route
        end
      end
      for _, answer in ipairs(answers) do
        for _, key in ipairs(answer.looks) do
          local fitting = ANSWERS[other][key] or {}
          ANSWERS[other][key] = fitting
          if not has(fitting, answer) then
            fitting[#fitting + 1] = answer
          end
        end
      end
    end
  end
end

fill_tables()

--- Whether an answer refuses: by its code, or by one that says so by mistake (9.3, 9.5).
local function is_error(coap)
  local code = coap.code
  return code >= FIRST_ERROR and code < BEHIND_ERRORS or MISCODED[code] ~= nil and coap.type == ACK
end

--- The row of a request, or of any message that is not an answer; nil when there is none.
local function request_route(sender, coap)
  local options = coap.options
  if options[1] then
    return options.letter and BY_PATH[sender][coap.code * 0x100 + options.letter]
  elseif coap.code == EMPTY and coap.type == CON then
    return ROUTES[sender].Ping
  end
  return nil
end

local function fits(route, size)
  local sizes = route.spec.payload_sizes
  return sizes[1] <= size and (not sizes[2] or size <= sizes[2])
end

local function is_description(payload)
  if sub(payload, 1, #METRICS_PREFIX) == METRICS_PREFIX then
    return true
  end
  local told = read_description(payload)
  return told.functions ~= nil and told.variables ~= nil
end

--- The row of an answer whose request is not in the capture, where its looks leave only one.
local function lone_answer_route(sender, coap)
  local payload = coap.payload
  local only, count = nil, 0
  local fitting = {}
  for _, route in ipairs(ANSWERS[sender][coap.type * 0x100 + coap.code] or fitting) do
    if fits(route, #payload) then
      only, count = route, count + 1
      fitting[route.name] = route
    end
  end
  if count > 1 and payload ~= "" then
    -- Two rows are 2.05 with any payload, a description and a variable; only the first is always JSON.
    local described = is_description(payload)
    if described or byte(payload) ~= 0x7B then
      only, count = fitting[described and "DescribeResponse" or "VariableValue"], 1
    end
  end
  return count == 1 and only or nil
end

--- The row of an answer: by the row `asked` that it answers, or by its looks alone.
local function answer_route(sender, coap, asked)
  local code, kind = coap.code, coap.type
  if kind == RST then
    return code == EMPTY and ROUTES[sender].Reset or nil
  elseif asked then
    local route = asked.answers[kind * 0x100 + code]
    if route then
      return route
    elseif kind == ACK then
      return asked.ack
    end
    return is_error(coap) and asked.separate or nil
  elseif code == EMPTY then
    -- A bare acknowledgement can be that of a dozen messages, and it is the most frequent message of all.
    return nil
  end
  return lone_answer_route(sender, coap)
end

--- The name of an answer of which only the kind can be told; nil for codes that the protocol does not have.
local function generic_name(coap)
  local code = coap.code
  if coap.type == RST then
    return nil
  elseif is_error(coap) then
    return coap.type == ACK and ERROR_ACK_OF_UNKNOWN or ERROR_RESPONSE_TO_UNKNOWN
  elseif coap.type == ACK and (code == EMPTY or code == CHANGED) then
    return ACK_OF_UNKNOWN
  end
  return code >= FIRST_RESPONSE and code < BEHIND_SUCCESS and RESPONSE_TO_UNKNOWN or nil
end

-- Peers: which firmware and which server wrote this (PROTOCOL 1.2, 4.2, 5.4, 7.1) ---------------------------------

--- A device's generation and the range of its firmware, in one pair, from its Hello; an empty pair where it is open.
local function generation_of(payload_size, hello, id_order)
  local platform = hello.platform_id
  if not platform then
    return WITHOUT_PLATFORM
  elseif payload_size >= HELLO_3X_SIZE then
    return WITH_3X_HELLO
  elseif platform == CORE then
    return LATER_CORE
  elseif platform == PHOTON or platform == P1 then
    for _, told in ipairs(PHOTON_BY_FLAG) do
      if has_bit(hello.flags, told[1]) then
        return told[2]
      end
    end
    -- The ids come from another code base than the flags suggest; only one of the two can be configured.
    return id_order == LOW_FIRST and DIAGNOSING_PHOTON or UNFLAGGED_PHOTON
  end
  return platform == ELECTRON and { G2B } or {}
end

--- In which order the device read the first two bytes of the salt as its id seed (4.2).
local function id_order_of(message_id, salt)
  local first, second = byte(salt, 1, 2)
  local high = (first * 0x100 + second + 1) % 0x10000
  local low = (second * 0x100 + first + 1) % 0x10000
  if high == low and high == message_id then
    return EITHER_ORDER
  elseif message_id == high then
    return HIGH_FIRST
  end
  return message_id == low and LOW_FIRST or NEITHER_ORDER
end

local function max_age_size(options)
  for index = 1, #options do
    if options[index][1] == MAX_AGE then
      return #options[index][2]
    end
  end
  return 0
end

--- Which of the two open servers writes like this (5.4.1, 5.4.2, 5.4.6, 5.4.7), or nil.
local function server_dialect_of(coap, name, paired)
  local token, code = coap.token, coap.code
  if name == "Hello" then
    return token == "" and COMMUNITY or token == "\1" and LEGACY or nil
  elseif name == "Event" then
    local size = max_age_size(coap.options)
    return size == 4 and COMMUNITY or size > 0 and LEGACY or nil
  elseif coap.type ~= ACK then
    return nil
  elseif token == "\0" and (code == EMPTY or code >= FIRST_ERROR) then
    return LEGACY
  end
  -- Both servers write the same bare acknowledgement to a ChunkMissed.
  local bare = (code == EMPTY or code == CODES["0.04"]) and token == ""
  return bare and paired and name ~= "ChunkMissedAck" and COMMUNITY or nil
end

-- Requests that wait for an answer --------------------------------------------------------------------------------

--- What one side has asked and not been answered, by one `key` of its messages ("message_id" or "token"). The queue
-- keeps the order of arrival; what has been answered or replaced stays in it until it is swept.
local Waiting = {}
Waiting.__index = Waiting

function Waiting.new(key)
  return setmetatable({ key = key, requests = {}, count = 0, queue = {}, first = 1, last = 0 }, Waiting)
end

function Waiting:remove(key)
  self.requests[key] = nil
  self.count = self.count - 1
end

function Waiting:waits(request)
  return self.requests[request.coap[self.key]] == request
end

function Waiting:drop_oldest()
  local queue, first = self.queue, self.first
  while not self:waits(queue[first]) do
    queue[first] = nil
    first = first + 1
  end
  self:remove(queue[first].coap[self.key])
  queue[first] = nil
  self.first = first + 1
end

function Waiting:sweep()
  local kept, count = {}, 0
  for place = self.first, self.last do
    local request = self.queue[place]
    if self:waits(request) then
      count = count + 1
      kept[count] = request
    end
  end
  self.queue, self.first, self.last = kept, 1, count
end

--- Add the newest request and return how many were dropped for it: the oldest one, or none.
function Waiting:put(request)
  local key, dropped = request.coap[self.key], 0
  if not self.requests[key] then
    self.count = self.count + 1
  end
  self.requests[key] = request
  self.last = self.last + 1
  self.queue[self.last] = request
  -- Dropping after putting, not before: a table that is full at every turn would be made anew at every turn.
  if self.count > MOST_OUTSTANDING then
    self:drop_oldest()
    dropped = 1
  end
  -- So that sweeping costs no more than putting did, and the queue no more than twice what waits.
  if self.last - self.first > 2 * self.count + 32 then
    self:sweep()
  end
  return dropped
end

-- Messages --------------------------------------------------------------------------------------------------------

--- One message, named and explained: { index (from 0), packet, time (seconds), direction (the sender), name, coap,
-- plaintext, values, value_order, answers (index of the request), answers_packet, answer_time (seconds between the
-- two), missing (bytes lost at the front), tail (what is left then; coap is nil) }, and read from these when asked:
-- `type` ("CON"), `code` ("2.05"), `message_id`, `token`, `path` (text), `query` (array of raw options), `payload`.
local SparkMessage = {}

local FROM_COAP = {
  type = function(coap) return TYPE_NAMES[coap.type + 1] end,
  code = function(coap) return CODE_TEXTS[coap.code + 1] end,
  message_id = function(coap) return coap.message_id end,
  token = function(coap) return coap.token end,
  path = function(coap) return coap.options.path end,
  query = function(coap) return coap.options.queries end,
  payload = function(coap) return coap.payload end,
}

function SparkMessage.__index(message, name)
  local read = FROM_COAP[name]
  local coap = read and message.coap
  return coap and read(coap) or nil
end

local NOTHING = {} -- values and names of the many messages that say nothing beyond their name

local FOLLOWED = {}

--- The names `order` with one more behind them; the same table each time.
local function with(order, name)
  local longer = FOLLOWED[order] or {}
  FOLLOWED[order] = longer
  if not longer[name] then
    local names = {}
    for index, one in ipairs(order) do
      names[index] = one
    end
    names[#names + 1] = name
    longer[name] = names
  end
  return longer[name]
end

local TAIL, ANOMALOUS = { "tail_text" }, { "anomalies" }

--- Reads one conversation's messages, in the order of the capture.
--
-- `salt` is the last 8 bytes of the session key, where it is known: it ties the Hello to the session. `generation`,
-- `firmware`, `server_dialect` and `id_order` are nil until a message has told them. `forgotten` counts requests that
-- were dropped because too many waited.
local MessageReader = {}
MessageReader.__index = MessageReader

function MessageReader.new(salt)
  return setmetatable({
    generation = nil,
    firmware = nil,
    server_dialect = nil,
    id_order = nil,
    forgotten = 0,
    salt = salt,
    count = 0,
    hello_seen = false,
    variable_types = nil,
    by_id = { [DEVICE] = Waiting.new("message_id"), [SERVER] = Waiting.new("message_id") },
    by_token = { [DEVICE] = Waiting.new("token"), [SERVER] = Waiting.new("token") },
  }, MessageReader)
end

function MessageReader:find_request(sender, coap)
  local other = OTHER_SIDE[sender]
  if coap.type < ACK then
    return self.by_token[other].requests[coap.token]
  end
  local request = self.by_id[other].requests[coap.message_id]
  if coap.token ~= "" and coap.code >= FIRST_RESPONSE and not (request and request.coap.token == coap.token) then
    -- The second of two Describe answers has an id from nowhere, perhaps even that of another request.
    return self.by_token[other].requests[coap.token] or request
  end
  return request
end

--- Stop waiting for what has come, and no earlier: a refused call may still return (5.4.10).
function MessageReader:settle(sender, coap, route, request)
  local other = OTHER_SIDE[sender]
  local by_id, by_token = self.by_id[other], self.by_token[other]
  if coap.type >= ACK and by_id:waits(request) then
    by_id:remove(request.coap.message_id)
  end
  if not request.route.by_token then
    request.answered = true
  elseif route and route.has_content then
    request.answered = true
    if not route.repeats and by_token:waits(request) then
      by_token:remove(request.coap.token)
    end
  elseif is_error(coap) then
    request.answered = true
  end
end

function MessageReader:remember(sender, message, coap, route)
  local values = message.values
  local subject = values.name
  if subject == nil then
    subject = values.index
  end
  local request = {
    index = message.index,
    packet = message.packet,
    time = message.time,
    coap = coap,
    route = route,
    subject = subject,
    answered = false,
  }
  self.forgotten = self.forgotten + self.by_id[sender]:put(request)
  if route.by_token then
    self.by_token[sender]:put(request)
  end
end

local CHUNK_RECEIVED = { "index", "accepted" }
local VARIABLE_VALUE = { "name", "type", "type_source", "value", "in_describe" }

function MessageReader:variable(coap, name)
  local known = self.variable_types
  local declared = known and name and known.fields[name]
  declared = type(declared) == "string" and declared or nil
  local kind, value = variable_value(coap.payload, declared)
  local in_describe
  -- Reading a name that the device does not offer gives whatever 5.4.11 says, so that is worth knowing.
  if known and name then
    in_describe = known.fields[name] ~= nil
  end
  if coap.type == NON and self.generation == G2B_OR_G2C then
    self.generation, self.firmware = LAST_SEPARATE_PHOTON[1], LAST_SEPARATE_PHOTON[2]
  end
  return {
    name = name,
    type = kind,
    type_source = declared and "describe" or "length",
    value = value,
    in_describe = in_describe,
  }, VARIABLE_VALUE
end

--- Tell whether this refusal is the legacy server's habit (9.7), and whether this device minds it.
function MessageReader:refused_event(request, values, order)
  local name = request.subject or ""
  local system = sub(lower(name), 1, #SYSTEM_EVENT_PREFIX) == SYSTEM_EVENT_PREFIX
  values.habit = self.server_dialect == LEGACY and not system
  order = with(order, "habit")
  if not values.habit then
    return order
  end
  values.harmless = IGNORES_REFUSALS[self.generation or ""]
  return with(order, "harmless")
end

function MessageReader:answer_values(coap, route, request)
  local failed = is_error(coap)
  local values, order = {}, NOTHING
  if route then
    local name, subject = route.name, request and request.subject
    if name == "ChunkReceived" then
      values.index, values.accepted = subject, not failed
      order = CHUNK_RECEIVED
    elseif name == "VariableValue" then
      if failed then
        values.name, order = subject, NAME
      else
        values, order = self:variable(coap, subject)
      end
    elseif route.read then
      values, order = route.read(coap, subject)
    end
    if route.repeats then
      if request then
        values["repeat"] = request.answered
      end
      order = with(order, "repeat")
    end
  end
  if failed then
    local text = CODE_TEXTS[coap.code + 1]
    values.error = MISCODED_ERRORS[text] or text
    order = with(order, "error")
    if route and route.name == "EventAck" and request then
      order = self:refused_event(request, values, order)
    end
  end
  return values, order
end

function MessageReader:learn_from_hello(coap, values)
  if self.salt then
    self.id_order = id_order_of(coap.message_id, self.salt)
  end
  local told = generation_of(#coap.payload, values, self.id_order)
  self.generation, self.firmware = told[1], told[2]
end

--- Read one message without its padding. `sender` is "device" or "server"; `missing` the number of bytes lost at the
-- message's front, `plaintext` then being the rest of it.
function MessageReader:read(sender, plaintext, packet, time, missing)
  local index = self.count
  self.count = index + 1
  local message = setmetatable({
    index = index,
    packet = packet,
    time = time,
    direction = sender,
    name = nil,
    coap = nil,
    plaintext = plaintext,
    values = NOTHING,
    value_order = NOTHING,
    answers = nil,
    answers_packet = nil,
    answer_time = nil,
    missing = missing or 0,
    tail = nil,
  }, SparkMessage)
  if message.missing > 0 then
    message.tail = decode_tail(plaintext, missing)
    message.values, message.value_order = { tail_text = message.tail.text }, TAIL
    return message
  end
  local coap = decode(plaintext)
  message.coap = coap
  if coap.anomalies[1] and not well_formed(coap) then
    message.values, message.value_order = { anomalies = coap.anomalies }, ANOMALOUS
    return message
  end

  local kind, code = coap.type, coap.code
  local request, route, name
  if kind < ACK and code < FIRST_RESPONSE then
    route = request_route(sender, coap)
    if route then
      name = route.name
      if route.read then
        message.values, message.value_order = route.read(coap)
      end
    end
  else
    request = self:find_request(sender, coap)
    route = answer_route(sender, coap, request and request.route)
    name = route and route.name or generic_name(coap)
    -- Half of all messages are bare acknowledgements, which say nothing more.
    if code ~= EMPTY then
      message.values, message.value_order = self:answer_values(coap, route, request)
    end
  end
  message.name = name
  if request then
    message.answers, message.answers_packet = request.index, request.packet
    message.answer_time = time - request.time
    self:settle(sender, coap, route, request)
  end
  if kind == CON or kind == NON and route and route.by_id then
    self:remember(sender, message, coap, route or UNNAMED)
  end
  if sender == SERVER then
    if not self.server_dialect then
      self.server_dialect = server_dialect_of(coap, name, request ~= nil)
    end
  elseif name == "Hello" and not self.hello_seen then
    self.hello_seen = true
    self:learn_from_hello(coap, message.values)
  elseif DESCRIPTIONS[name or ""] then
    local variables = message.values.variables
    if variables and #variables.order > 0 then
      self.variable_types = variables
    end
  end
  return message
end

spark.MessageReader = MessageReader
