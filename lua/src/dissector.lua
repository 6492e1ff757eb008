-- Wireshark's side: what it calls, and when.
--
-- Two dissectors share the work. `proto` is registered for the ports: it claims what is ours, so that Wireshark does
-- not read it as CoAP, and hands back what is not. `watcher` is a post-dissector: it sees every packet of the capture
-- in order, also those that TCP hands to nobody (late, repeated, without data), feeds the engine when a packet comes
-- for the first time, and draws its row each time.

local constants, proto = spark.constants, spark.proto
local read_segment, is_damaged = spark.packets.read_segment, spark.packets.is_damaged
local item_of, HELLO_SIZES = spark.item_of, spark.HELLO_SIZES
local max, sub = math.max, string.sub

local SPARK_PORT = constants.catalogue.SPARK_PORT
local SEQUENCE_SPACE = constants.streams.SEQUENCE_SPACE
local NAME = "SPARK" -- what Wireshark calls our dissector
local TCP_PORTS = 2 -- Wireshark's number for "these ports are TCP's"
local PORTS = 65536
-- Stands where several conversations use the same two ports.
local SEVERAL = {}
-- A pause after which a login that has not come through is looked at again.
local PAUSE = 1
-- Packets of a conversation that are claimed afterwards, once it is known whose it is.
local UNDECIDED = 64
-- Frames of a conversation that do not open and are judged at once; what comes after them says the same.
local JUDGED_FRAMES = 8

local watcher = Proto("spark_packets", "Spark packets")

proto.prefs.about = Pref.statictext(
  "Messages are shown in clear when a key is given; everything else works without.", "")
proto.prefs.device_key = Pref.string("Device key", "",
  "The device's private key: a file (PEM, DER or a dump of the device's memory), or a folder with many")
proto.prefs.server_key = Pref.string("Server key", "",
  "The server's key, a file or a folder: public checks signatures, private tells which device it is")
proto.prefs.keylog = Pref.string("Key log", "",
  "Session keys, as written by: sparkshark decrypt CAPTURE --keys KEYS --keylog-out FILE")
proto.prefs.ports = Pref.range("TCP ports of the server", tostring(SPARK_PORT), "For instance 5683,8883", 65535)
proto.prefs.reassemble_out_of_order = Pref.bool(spark.ORDER_PREFERENCE, true,
  "Off: what comes after a missing segment is shown at once, and the message it belongs to is lost")

-- -- the state of one capture -----------------------------------------------------------------------------------------

local analysis, ring, rows, handed, names, by_ports, lasts, offered
local registered = tostring(SPARK_PORT)
local ports, asked
local told_of_keys = false

--- Reads "5683,8000-8010" as a set.
local function set_of(text)
  local set = {}
  for first, last in string.gmatch(text, "(%d+)%-?(%d*)") do
    first = tonumber(first)
    for port = first, math.min(tonumber(last) or first, 65535) do set[port] = true end
  end
  return set
end

--- Forgets everything: Wireshark calls this before a capture is read, at times twice, and when it is closed.
local function forget()
  analysis, ring = nil, nil
  spark.packets.forget()
  rows, handed, names, by_ports, lasts, offered = {}, {}, {}, {}, nil, {}
  ports, asked = set_of(registered), {}
  told_of_keys = false
end
proto.init = forget
forget()

--- Begins when there is something to do: the keys are read here, so that their files may change between captures.
local function begin()
  ring = spark.KeyRing.load {
    device_key = proto.prefs.device_key,
    server_key = proto.prefs.server_key,
    keylog = proto.prefs.keylog,
  }
  analysis = spark.Analysis.new {
    ports = ports,
    keys = not ring.empty and ring or nil,
    in_order = proto.prefs.reassemble_out_of_order,
  }
  -- Messages that waited until their key was sure: their packets are drawn already, and right the next time.
  analysis.late = function(conversation, frame, opened, message)
    local row = rows[frame.packet]
    for _, item in ipairs(row and row.conversation == conversation and row or {}) do
      if item.index == frame.index and item.sender == frame.sender then spark.opened_item(item, opened, message) end
    end
  end
  return analysis
end

-- -- whose payload is it? --------------------------------------------------------------------------------------------

local tcp_port = DissectorTable.get("tcp.port")
-- Wireshark's own dissector for the port, asked for before it is replaced.
local built_in = tcp_port:get_dissector(SPARK_PORT)

local function flow_name(pinfo)
  return tostring(pinfo.src) .. " " .. pinfo.src_port .. " " .. tostring(pinfo.dst) .. " " .. pinfo.dst_port
end

--- The conversation of these ports, if that is all there is to ask: writing out addresses costs more than all else.
local function conversation_of(pinfo)
  local known = by_ports[pinfo.src_port * PORTS + pinfo.dst_port]
  if known == SEVERAL then known = names[flow_name(pinfo)] end
  return known
end

--- Whether Wireshark's own dissector shall read this payload.
local function is_foreign(tvb, pinfo)
  local conversation = conversation_of(pinfo)
  if conversation and conversation.verdict then return conversation.verdict ~= "spark" end
  local known = analysis or begin()
  local from_server = ports[pinfo.src_port] and not ports[pinfo.dst_port]
  if conversation then from_server = conversation.server_flow == flow_name(pinfo) end
  return known:verdict(tvb:raw(0, tvb:len()), from_server, conversation) ~= "spark"
end

-- The payload that was claimed or handed back last, what else Wireshark gave of the same packet, and its number.
local claimed, behind, claimed_number
-- A row on its way through Wireshark, which lists a finding under the protocol that is being dissected.
local drawn

local function draw_as_spark(tvb, pinfo, tree)
  local row = drawn
  drawn = nil
  spark.draw_row(row, tvb, pinfo, tree)
  return tvb:len()
end

--- Claims the payload, or hands it back for good. The packet is drawn by `watcher`.
function proto.dissector(tvb, pinfo, tree)
  if drawn then return draw_as_spark(tvb, pinfo, tree) end
  local number = pinfo.number
  if not pinfo.visited then
    if claimed_number == number then
      behind = behind .. tvb:raw()
    else
      claimed, behind, claimed_number = tvb, "", number
      if is_foreign(tvb, pinfo) then handed[number] = true end
    end
  end
  -- Without an answer, all of it counts as read: asking for its size would cost more than all of this.
  return handed[number] and built_in and built_in:call(tvb, pinfo, tree) or nil
end

-- -- a packet seen for the first time --------------------------------------------------------------------------------

--- What stands for an address where only its text is known: 16 bytes, like the longest address.
local function stand_in(address)
  return sub(string.rep(" ", 16) .. tostring(address), -16)
end

--- Where in its stream a payload stands that follows all that was seen; how its conversation calls the two ends.
local function following(conversation, name)
  local from_server = conversation.server_flow == name
  local stream = not conversation.retired and conversation.streams[from_server and "server" or "device"]
  local device, server = conversation.device.address, conversation.server.address
  local seq = stream and stream.base and (stream.base + max(stream.next, stream.highest)) % SEQUENCE_SPACE
  return seq or 1, from_server and server or device, from_server and device or server
end

--- The payload without what was handed to Wireshark's own dissector before: that one asks for it again, with more
-- behind it, when it sees the beginning of a message.
local function new_payload(name, number)
  local payload, before = claimed:raw() .. behind, offered[name]
  offered[name] = handed[number] and payload
  if before and sub(payload, 1, #before) == before then return sub(payload, #before + 1) end
  return payload
end

--- Makes a segment of a payload whose header is not among the frame's bytes (decrypted radio, fragments put
-- together): it follows what came before it, because TCP hands on nothing else.
local function follow_on(pinfo)
  if claimed_number ~= pinfo.number then return nil end
  local name = flow_name(pinfo)
  local seq, source, target = 1, stand_in(pinfo.src), stand_in(pinfo.dst)
  if names[name] then seq, source, target = following(names[name], name) end
  local payload = new_payload(name, pinfo.number)
  return {
    source = source,
    target = target,
    source_port = pinfo.src_port,
    target_port = pinfo.dst_port,
    seq = seq,
    ack = 0,
    syn = false,
    fin = false,
    rst = false,
    acks = false,
    length = #payload + claimed:reported_len() - claimed:len(),
    payload = payload,
    window = 0,
  }
end

--- Returns the findings of a conversation that have not been told yet, nil without any. Of one that may still turn out
-- to be genuine CoAP nothing is said. `at_end`, what is surer now than when it was told is told again.
local function untold(conversation, at_end)
  local sides = conversation.sides
  if not conversation.verdict and (sides.device.first_data or sides.server.first_data) then return nil end
  local new
  for _, finding in ipairs(analysis:judge(conversation)) do
    local told = conversation.told[finding.code .. finding.severity]
    if not told or (at_end and told ~= finding.confidence) then
      new = new or {}
      new[#new + 1] = finding
    end
  end
  return new
end

local function notes_on_keys()
  told_of_keys = true
  return ring.problems[1] and ring.problems
end

--- Which hello a frame can be, told by its place and size, or is, told by what it says: its sender; else nil.
local function hello_of(conversation, frame, message)
  if frame.index ~= conversation.sides[frame.sender].early then return nil end
  local session = conversation:part("session")
  if not session or not session.complete then return nil end
  if message then return message.name == "Hello" and frame.sender or nil end
  return (frame.sender == "server" or HELLO_SIZES[frame.size]) and frame.sender or nil
end

--- Where the bytes of what was completed stand in the packet, nil when they came in several.
local function place_of(made, segment, payload_offset, stream_offset)
  if not payload_offset then return nil end
  if made.what == "part" then
    local data = made.part.data
    local place = data and string.find(segment.payload, data, 1, true)
    return place and payload_offset + place - 1
  end
  local frame = made.frame
  if not frame or frame.first_packet ~= segment.number or not stream_offset then return nil end
  return payload_offset + frame.offset - stream_offset
end

--- Whether something happened by which the verdict may have changed.
local function is_news(segment, items, conversation)
  if segment.fin or segment.rst then return true end
  for _, item in ipairs(items) do
    if item.what ~= "frame" or item.dead then return true end
    if item.opened and not item.message then
      conversation.bad_frames = conversation.bad_frames + 1
      if conversation.bad_frames <= JUDGED_FRAMES then return true end
    end
  end
  return segment.time - conversation.heard >= PAUSE and not conversation.settled
end

--- What is known of a conversation for the rows' sake alone.
local function meet(conversation, pinfo, segment)
  local source, target = pinfo.src_port, pinfo.dst_port
  local name = flow_name(pinfo)
  local other = tostring(pinfo.dst) .. " " .. target .. " " .. tostring(pinfo.src) .. " " .. source
  local from_server = conversation:sender_of(segment) == "server"
  for ports_of, flow in pairs({ [source * PORTS + target] = name, [target * PORTS + source] = other }) do
    local known = by_ports[ports_of]
    by_ports[ports_of] = (known == nil or names[flow] == known) and conversation or SEVERAL
    names[flow] = conversation
  end
  conversation.server_flow = from_server and name or other
  if not segment.acks and not segment.syn and segment.ack == 0 then
    -- Made by `follow_on`: what stands for the addresses there is no address.
    conversation.server.ip = tostring(from_server and pinfo.src or pinfo.dst)
    conversation.device.ip = tostring(from_server and pinfo.dst or pinfo.src)
  end
  conversation.told, conversation.bad_frames, conversation.heard = {}, 0, segment.time
  conversation.requests, conversation.handed, conversation.settled = {}, {}, false
end

--- Takes back what was handed to Wireshark's own dissector before it was known whose it is.
local function claim_what_was_handed(conversation)
  for _, number in ipairs(conversation.handed) do handed[number] = nil end
  conversation.handed = {}
end

--- Makes an item of what a packet completed; `at` is where its bytes stand in the packet, or nil.
local function item_at(conversation, made, number, at)
  local frame, message = made.frame, made.message
  local hello = frame and hello_of(conversation, frame, message)
  local item = item_of(made, conversation.secrets, hello, at)
  if message then
    local requests, answered = conversation.requests, message.answers
    requests[message.index] = item
    local request = answered and requests[answered]
    if request then request.answered = request.answered or number end
  end
  return item
end

--- Makes a row with its items. Rows of the common kind are made in one piece, with room for all that is set later:
-- a table that grows is built anew, and a key that is set to nil makes it grow, too.
local function new_row(conversation, items, segment, payload_offset)
  local number, sender, made = segment.number, conversation:sender_of(segment), items[1]
  local frame = made and made.frame
  if frame and items[2] == nil and frame.first_packet == number and frame.size == segment.length then
    -- The payload is one whole frame: nothing is to be looked for.
    local item = item_at(conversation, made, number, payload_offset)
    return { item, conversation = conversation, sender = sender, time_in_step = nil }
  end
  local row = { conversation = conversation, sender = sender, time_in_step = nil }
  local stream_offset = made and payload_offset and conversation:offset_of(segment)
  for place = 1, #items do
    made = items[place]
    row[place] = item_at(conversation, made, number, place_of(made, segment, payload_offset, stream_offset))
  end
  return row
end

--- A packet that was damaged on its way counts as one that was not captured: its receiver has dropped it, too.
local function damaged_row(segment)
  local conversation = analysis
    and analysis:conversation_of(segment.source, segment.source_port, segment.target, segment.target_port)
  if not conversation or conversation.verdict ~= "spark" then return nil end
  local row = { conversation = conversation, sender = conversation:sender_of(segment) }
  row.waiting = "damaged on its way (its checksum is wrong): left out"
  rows[segment.number] = row
  return row
end

--- Feeds a packet to the engine and makes its row, if there is anything to show.
local function take(tvb, pinfo, time, source_port, target_port)
  local number = pinfo.number
  local segment, payload_offset = read_segment(tvb:raw(), tvb:reported_len(), source_port, target_port)
  if not segment then
    segment = follow_on(pinfo)
    if not segment then return nil end
  end
  segment.number, segment.time = number, time
  if payload_offset and is_damaged(segment) then return damaged_row(segment) end
  local conversation, items = (analysis or begin()):take(segment)
  if not conversation then return nil end
  if not conversation.told then meet(conversation, pinfo, segment) end
  lasts, conversation.last_packet_taken = nil, number
  if conversation.verdict == "coap" then return nil end
  local length, row = segment.length, nil
  -- Before the verdict: what a hello is must not depend on when it was last judged.
  if items[1] then row = new_row(conversation, items, segment, payload_offset) end
  local findings
  if is_news(segment, items, conversation) then
    findings = untold(conversation)
    -- As of this packet: windows and rows that are drawn while a capture is read bring `reached` up to date as well,
    -- and what a packet tells must not depend on them.
    conversation.settled = conversation.reached == "established"
  end
  conversation.heard = time
  if not row then
    local waiting = length > 0 and conversation:waiting(conversation:sender_of(segment)) or nil
    if not waiting and not findings then return nil end
    row = new_row(conversation, items, segment, payload_offset)
    row.waiting = waiting
  end
  if findings then
    row.findings = findings
    for _, finding in ipairs(findings) do
      conversation.told[finding.code .. finding.severity] = finding.confidence
    end
  end
  if length > 0 then
    row.time_in_step = time - (conversation.stepped or conversation.start_time)
    conversation.stepped = time
  end
  if not told_of_keys then row.notes = notes_on_keys() end
  rows[number] = row
  if not handed[number] then
    if conversation.handed[1] then claim_what_was_handed(conversation) end
    return row
  end
  local undecided = conversation.handed
  if #undecided < UNDECIDED then undecided[#undecided + 1] = number end
  return nil
end

-- -- drawing -------------------------------------------------------------------------------------------------------

--- Returns the conversation whose last packet this is, as far as packets were taken; nil when it goes on.
local function ended_by(number)
  if not lasts then
    lasts = {}
    for _, conversation in ipairs(analysis and analysis.trace.conversations or {}) do
      if conversation.last_packet_taken then lasts[conversation.last_packet_taken] = conversation end
    end
  end
  return lasts[number]
end

--- A row for what is known only at the end of the capture: silences. It is said at the conversation's last packet.
local function last_word(conversation, row, pinfo)
  local late = conversation.verdict ~= "coap" and untold(conversation, true)
  if not late then return row end
  local sender = conversation.server_flow == flow_name(pinfo) and "server" or "device"
  local whole = { conversation = conversation, sender = sender, findings = {} }
  for name, value in pairs(row or {}) do whole[name] = value end
  local all = {}
  for _, list in ipairs({ whole.findings, late }) do
    for _, finding in ipairs(list) do all[#all + 1] = finding end
  end
  whole.findings = all
  return whole
end

--- Whether this is the port of a server: one of the preference, or one that "Decode As" gives to this protocol.
local function is_server_port(port)
  if ports[port] or asked[port] then return ports[port] end
  asked[port] = true
  local decoder = tcp_port:get_dissector(port)
  ports[port] = decoder and tostring(decoder) == NAME or nil
  return ports[port]
end

function watcher.dissector(tvb, pinfo, tree)
  local row
  if pinfo.visited then
    local number = pinfo.number
    row = rows[number]
    if handed[number] then row = nil end
    local ended = ended_by(number)
    if ended then row = last_word(ended, row, pinfo) end
  else
    local time = pinfo.rel_ts
    if analysis then analysis.trace.last = time end
    if pinfo.port_type ~= TCP_PORTS then return end
    -- Asked for once: each question to Wireshark costs as much as twenty steps of ours.
    local source_port, target_port = pinfo.src_port, pinfo.dst_port
    if not (is_server_port(target_port) or is_server_port(source_port)) then return end
    row = take(tvb, pinfo, time, source_port, target_port)
  end
  if not row then return end
  if row.findings or row.notes then
    drawn = row
    spark.own_dissector():call(tvb, pinfo, tree)
  else
    spark.draw_row(row, tvb, pinfo, tree)
  end
end

register_postdissector(watcher)

-- -- preferences -----------------------------------------------------------------------------------------------------

tcp_port:set(registered, proto)

function proto.prefs_changed()
  local wanted = tostring(proto.prefs.ports)
  if wanted == registered then return end
  -- `set` forgets what was registered before.
  registered = wanted
  tcp_port:set(registered, proto)
end

spark.current = function() return analysis, ring end
