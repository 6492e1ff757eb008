-- What can be filtered on: the protocol, its fields, its expert infos and its preferences.

local constants = spark.constants

local proto = Proto("spark", "Spark Core and Particle Photon cloud protocol")

-- The fields of the interface, and a few beside them. What is worked out and not on the wire is marked generated
-- where it is added.
local field = {
  conversation = ProtoField.uint32("spark.conversation", "Conversation"),
  direction = ProtoField.string("spark.direction", "From"),
  stage = ProtoField.string("spark.stage", "Step"),
  reached = ProtoField.string("spark.reached", "Reached"),
  time_in_step = ProtoField.relative_time("spark.time_in_step", "Since the step before"),
  device_id = ProtoField.string("spark.device_id", "Device id"),
  nonce = ProtoField.bytes("spark.nonce", "Nonce"),
  identity = ProtoField.bytes("spark.identity", "Identity, sealed for the server"),
  session = ProtoField.bytes("spark.session", "Session offer"),
  sealed_key = ProtoField.bytes("spark.session.sealed_key", "Session key, sealed for the device"),
  signature_bytes = ProtoField.bytes("spark.session.signature", "Signature of the server"),
  signature = ProtoField.string("spark.signature", "Signature"),
  key_source = ProtoField.string("spark.key_source", "Opened with"),
  nonce_matches = ProtoField.bool("spark.identity.nonce_matches", "Holds the nonce of this connection"),
  offered_key = ProtoField.string("spark.identity.offered_key", "Public key that the device offers"),
  length = ProtoField.uint16("spark.frame.length", "Length"),
  index = ProtoField.uint32("spark.frame.index", "Number of the frame in its direction"),
  ciphertext = ProtoField.bytes("spark.frame.ciphertext", "Ciphertext"),
  message = ProtoField.string("spark.message", "Message"),
  plaintext = ProtoField.bytes("spark.plaintext", "Plaintext"),
  missing = ProtoField.uint32("spark.missing", "Bytes missing"),
  answers = ProtoField.framenum("spark.answers", "Answers the request in packet", base.NONE, frametype.REQUEST),
  answered = ProtoField.framenum("spark.answered", "Answered in packet", base.NONE, frametype.RESPONSE),
  answer_time = ProtoField.relative_time("spark.answer_time", "Since the request"),
  finding = ProtoField.string("spark.finding", "Finding"),
  severity = ProtoField.string("spark.severity", "Severity"),
  confidence = ProtoField.string("spark.confidence", "Confidence"),
  note = ProtoField.string("spark.note", "Note"),
}

-- The values of messages: one field for each, named after the thing and the value. The messages that tell of a thing:
local THINGS = {
  Hello = "hello",
  Goodbye = "goodbye",
  TimeResponse = "time",
  Event = "event",
  EventAck = "event",
  Subscribe = "subscribe",
  SubscribeAck = "subscribe",
  Describe = "describe",
  DescribeResponse = "describe",
  DescribePost = "describe",
  FunctionCall = "function",
  FunctionCallAck = "function",
  FunctionReturn = "function",
  VariableRequest = "variable",
  VariableRequestAck = "variable",
  VariableValue = "variable",
  Signal = "signal",
  UpdateBegin = "update",
  SaveBegin = "update",
  UpdateReady = "update",
  UpdateAbort = "update",
  UpdateDone = "update",
  UpdateDoneAck = "update",
  Chunk = "chunk",
  ChunkMissed = "chunk",
}
local U, S, B, I, D = ProtoField.uint32, ProtoField.string, ProtoField.bool, ProtoField.int32, ProtoField.double

local function is_whole(value, least, most)
  return type(value) == "number" and value >= least and value <= most and value == math.floor(value)
end

-- What such a field can hold: a value that a strange message gives another form is shown as text.
local HOLDS = {
  [U] = function(value) return is_whole(value, 0, 4294967295) end,
  [I] = function(value) return is_whole(value, -2147483648, 2147483647) end,
  [B] = function(value) return type(value) == "boolean" end,
  [D] = function(value) return type(value) == "number" end,
}
local VALUES = {
  hello = {
    product_id = U, firmware_version = U, flags = U, flag_names = S, platform_id = U, platform = S,
    device_id_length = U, system_version = U, largest_message = U, largest_binary = U, ota_chunk_size = U,
  },
  goodbye = { flags = U, cloud_reason = U, reset_reason = U, sleep_seconds = U, network_reason = U },
  time = { time = U },
  event = { name = S, data = S, ttl = U, scope = S },
  subscribe = { prefix = S, scope = S, device_id = S },
  describe = { flags = U, flag_names = S, functions = S, variables = S, modules = S, metrics = S },
  ["function"] = { name = S, argument = S, arguments = S, return_value = I },
  variable = { name = S, type = S, type_source = S, value = S, number = D },
  signal = { on = B },
  update = {
    flags = U, fast_offered = B, chunk_size = U, file_length = U, store = U, store_name = S, address = U, fast = B,
    reason = U, modules = S,
  },
  chunk = { crc = U, crc_ok = B, index = U, size = U, indexes = S, count = U },
}

local function words(name)
  local text = string.gsub(name, "_", " ")
  return string.upper(string.sub(text, 1, 1)) .. string.sub(text, 2)
end

-- Names in order, so that the file does the same each time it is loaded.
local function sorted(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local value_fields, all_fields = {}, {}
for _, name in ipairs(sorted(field)) do all_fields[#all_fields + 1] = field[name] end
for _, thing in ipairs(sorted(VALUES)) do
  value_fields[thing] = {}
  for _, name in ipairs(sorted(VALUES[thing])) do
    local abbreviation = "spark." .. thing .. "." .. name
    local made = VALUES[thing][name](abbreviation, words(thing) .. ": " .. string.gsub(name, "_", " "))
    value_fields[thing][name] = { field = made, is_text = VALUES[thing][name] == S, holds = HOLDS[VALUES[thing][name]] }
    all_fields[#all_fields + 1] = made
  end
end
-- Whatever has no field of its own: "name: value".
field.value = ProtoField.string("spark.value", "Value")
all_fields[#all_fields + 1] = field.value
proto.fields = all_fields

-- One expert info for each finding: Wireshark lists and counts them by this text.
local SEVERITIES = {
  critical = expert.severity.ERROR,
  major = expert.severity.ERROR,
  minor = expert.severity.WARN,
  info = expert.severity.NOTE,
  ok = expert.severity.CHAT,
}
local DECRYPTION = expert.group.DECRYPTION or expert.group.SECURITY
local GROUPS = {
  keys = DECRYPTION,
  session = expert.group.SEQUENCE,
  update = expert.group.SEQUENCE,
  capture = expert.group.REASSEMBLE,
}
local FINDINGS = constants.findings.FINDINGS

-- The same finding can be worse in one conversation than in another, so there is one for each severity.
local experts, all_experts = {}, {}
for _, code in ipairs(sorted(FINDINGS)) do
  local spec = FINDINGS[code]
  for _, severity in ipairs(constants.findings.SEVERITY_ORDER) do
    local abbreviation = "spark.expert." .. string.lower(code) .. "." .. severity
    local group = GROUPS[spec.group] or expert.group.PROTOCOL
    local made = ProtoExpert.new(abbreviation, code .. ": " .. spec.title, group, SEVERITIES[severity])
    experts[code .. severity] = made
    all_experts[#all_experts + 1] = made
  end
end
local note = ProtoExpert.new("spark.expert.note", "A note of the Spark plugin", expert.group.COMMENTS_GROUP,
  expert.severity.NOTE)
local undecrypted = ProtoExpert.new("spark.expert.undecrypted", "Not opened by the keys given", DECRYPTION,
  expert.severity.NOTE)
all_experts[#all_experts + 1] = note
all_experts[#all_experts + 1] = undecrypted
proto.experts = all_experts

local own

--- Returns our dissector as Wireshark knows it: not before all files are loaded.
function spark.own_dissector()
  own = own or Dissector.get("spark")
  return own
end

spark.proto, spark.field = proto, field
spark.value_fields, spark.things = value_fields, THINGS
spark.experts, spark.note_expert, spark.undecrypted_expert = experts, note, undecrypted
