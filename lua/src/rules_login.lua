-- SPK101-104 and SPK201-204: does a connection come about, does a Spark server answer on it, and where does the login
-- stop before the server has replied?

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, plural, size = wording.duration, wording.number, wording.packets, wording.plural,
  wording.size
local apart, fill, saw, not_it = rules.apart, rules.fill, rules.saw, rules.not_it
local abs, max = math.abs, math.max

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SMALLEST_FRAME_ON_WIRE = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local DEVICE_READ_LIMIT = constants.catalogue.DEVICE_READ_LIMIT
local AT_ONCE = constants.rules.facts.AT_ONCE / 1e9
local ENOUGH_SYNS = constants.rules.connectivity.ENOUGH_SYNS
local LONE_SYN = constants.rules.connectivity.LONE_SYN / 1e9
local LOST_PATIENCE = constants.rules.connectivity.LOST_PATIENCE / 1e9
local DEAD_PING_AFTER = constants.rules.connectivity.DEAD_PING_AFTER / 1e9
local MIDDLEBOX_HOPS = constants.rules.connectivity.MIDDLEBOX_HOPS
local PROBE = constants.rules.handshake.PROBE / 1e9
local SERVER_PATIENCE = constants.rules.handshake.SERVER_PATIENCE / 1e9
local ENOUGH_SILENCE = constants.rules.handshake.ENOUGH_SILENCE / 1e9
local PIECES_TOLD = constants.rules.handshake.PIECES_TOLD
local IDENTITY_WAIT = constants.rules.handshake.IDENTITY_WAIT / 1e9

local login = {}

-- Connectivity -------------------------------------------------------------------------------------------------------

--- SPK101: SYNs without SYN-ACK or RST.
function login.never_answers(facts)
  local c = facts.conversation
  local first, last = c.syns[1], c.syns[#c.syns]
  if not first or c.syn_ack or c.connected or facts.server.quality.packets > 0 or facts:closing("server") then
    return nil
  end
  -- A further attempt from another port does not end the waiting.
  if c.syn_count < ENOUGH_SYNS and apart(facts.trace.last or c.end_time, first.time) < LONE_SYN then
    return nil
  end
  local asked = plural(c.syn_count, "request") .. " to connect"
  if c.syn_count > 1 then
    asked = asked .. " in " .. duration(last.time - first.time)
  end
  return facts:finding(
    "SPK101",
    c.syn_count >= ENOUGH_SYNS and "strong" or "likely",
    { saw(asked .. ": 0 answers, 0 refusals.", first.packet, last.packet) },
    {
      because = fill(constants.rules.words.BECAUSE_DROPPED, { port = c.server.port }),
      ruled_out = { not_it("SPK102", constants.rules.words.RULED_NO_REFUSAL) },
    }
  )
end

--- SPK102: RST to the SYN, or from the server's side before any byte.
function login.refused(facts)
  local c, reset = facts.conversation, facts.first_closing
  if not reset or reset.sender ~= "server" or reset.how ~= "rst" then
    return nil
  end
  local asked = c.syns[#c.syns]
  if facts.server.sent > 0 or facts.device.sent > 0 or not asked then
    return nil
  end
  local accepted = c.syn_ack or c.connected
  if not accepted then
    return facts:finding("SPK102", "certain", {
      saw("The request to connect of " .. packets({ asked.packet }) .. " is refused in "
        .. packets({ reset.packet }) .. ".", asked.packet, reset.packet),
    }, {
      because = constants.rules.words.BECAUSE_REFUSED,
      ruled_out = { not_it("SPK101", constants.rules.words.RULED_IS_ANSWER) },
    })
  end
  if apart(reset.time, accepted.time) > AT_ONCE then
    return nil
  end
  local evidence = {
    saw("Accepted in " .. packets({ accepted.packet }) .. ", cut off by the server's side in "
      .. packets({ reset.packet }) .. ", before a byte was sent.", accepted.packet, reset.packet),
  }
  if accepted == c.syn_ack and abs(reset.ttl - accepted.ttl) > MIDDLEBOX_HOPS then
    evidence[2] = saw("The reset comes from another machine than the acceptance (time-to-live " .. number(reset.ttl)
      .. " against " .. number(accepted.ttl) .. ").", reset.packet)
  end
  return facts:finding("SPK102", "strong", evidence, { because = constants.rules.words.BECAUSE_CUT_OFF })
end

--- Whether the capture lacks the device's first bytes, so that it is not known who spoke first.
local function is_blind(facts)
  if facts.unseen == "device" then
    return true
  end
  for _, hole in ipairs(facts.conversation.holes) do
    if hole.sender == "device" and hole.offset == 0 then
      return true
    end
  end
  return false
end

--- What greeted in the place of a Spark server, as the subject of a sentence.
local function service_name(kind, opening)
  if kind == "http" then
    local lower = opening:lower()
    if opening:sub(1, 13):find(constants.rules.words.REDIRECTION, 1, true) then
      return constants.rules.words.LOGIN_PAGE
    end
    for _, mark in ipairs(constants.rules.words.LOGIN_MARKS) do
      if lower:find(mark, 1, true) then
        return constants.rules.words.LOGIN_PAGE
      end
    end
  end
  return constants.rules.words.SERVICES[kind] or constants.rules.words.OTHER_SERVICE
end

--- SPK103: text or TLS where the nonce belongs.
function login.something_else(facts)
  local c = facts.conversation
  local opening, first, device_first = facts.server.opening, facts.server.first_data, facts.device.first_data
  local what = constants.rules.words.GREETINGS[c.kind]
  if not what or opening == "" or not first or facts.server.midway then
    return nil
  end
  if spark.request_kind(facts.device.opening) then
    return nil -- a client of that service: SPK801
  end
  if device_first and device_first.time < first.time and not (facts.identity and c.dead_frames[1]) then
    return nil -- the connecting side spoke first, and not as a Spark device: SPK801
  end
  if is_blind(facts) and facts.device.sent ~= IDENTITY_SIZE then
    return nil
  end
  local seen = fill(constants.rules.words.SEEN_INSTEAD, {
    packet = packets({ first.packet }),
    what = what,
    quoted = wording.quote(opening:match("^[^\r\n]+") or opening),
  })
  return facts:finding("SPK103", "certain", {
    saw("P" .. seen:sub(2) .. ". A greeting is " .. number(NONCE_SIZE) .. " random bytes.", first.packet),
  }, {
    because = seen .. ".",
    ruled_out = { not_it("SPK301", constants.rules.words.RULED_NO_SPARK_SERVER) },
    words = { service = service_name(c.kind, opening) },
  })
end

--- Whether the device sent nothing, or nothing but what an early Core sends to a server that never greets: a ping, 15 s
-- after the connection or later (PROTOCOL 9.2).
local function only_pinged(facts)
  local c, device = facts.conversation, facts.device
  if device.sent == 0 or c.dead_frames[1] then
    return true
  end
  return device.first_size == SMALLEST_FRAME_ON_WIRE and device.sent == SMALLEST_FRAME_ON_WIRE
    and apart(device.first_data.time, c.connected.time) > DEAD_PING_AFTER
end

--- SPK104: accepted, and no byte from the server (or only after the device had given up).
function login.silence(facts)
  local c, closing = facts.conversation, facts.first_closing
  if not c.connected or facts.midway or not (c.kind == "empty" or c.kind == "spark") or facts.unseen == "server" then
    return nil
  end
  local waited = facts:waited(c.connected.time)
  local device_left = closing and closing.sender == "device"
  local late = device_left and facts.nonce and closing.time < facts.nonce.first_time
  if (facts.server.sent > 0 and not late) or not only_pinged(facts) then
    return nil
  end
  if closing and closing.how == "rst" and closing.sender == "server" and waited <= AT_ONCE then
    return nil -- SPK102
  end
  if (not closing and waited < DEVICE_READ_LIMIT) or (device_left and waited < LOST_PATIENCE) then
    return nil -- too soon to call it silent
  end
  local evidence = {
    saw("Connected in " .. packets({ c.connected.packet }) .. "; then not one byte from the server in "
      .. duration(waited) .. ".", c.connected.packet),
  }
  if closing then
    evidence[2] = facts:ending()
  end
  return facts:finding("SPK104", "strong", evidence, {
    summary = late and fill(constants.rules.words.SAYS_LATE_GREETING, { server = c.server.ip }) or nil,
    because = late and constants.rules.words.BECAUSE_TOO_SLOW or constants.rules.words.BECAUSE_NO_SERVER,
    ruled_out = {
      not_it("SPK101", constants.rules.words.RULED_ACCEPTED),
      not_it("SPK301", constants.rules.words.RULED_BEFORE_KEYS),
    },
    silence = true,
  })
end

-- Greeting and "who I am" --------------------------------------------------------------------------------------------

local function short_nonce(facts)
  local nonce = facts.nonce
  if not facts.first_closing and facts:waited(nonce.time) < DEVICE_READ_LIMIT then
    return nil
  end
  if (nonce.missing > 0 and not facts.cut) or not facts:delivered("server") then
    return nil -- the rest may be lost
  end
  return facts:finding("SPK201", "strong", {
    saw(size(nonce.sent) .. " of the greeting came in packet " .. number(nonce.packet) .. ", and no more.",
      nonce.packet),
    facts:ending(),
  }, { because = constants.rules.words.BECAUSE_NOT_WHOLE, silence = true, words = { size = nonce.sent } })
end

local function long_nonce(facts)
  local nonce, session, answer = facts.nonce, facts.session, facts.device.first_data
  if nonce.missing > 0 or not session or session.received == 0 or facts.unseen then
    return nil
  end
  if facts.identity and facts.identity.missing > 0 then
    return nil -- the device did answer, in a packet that is not in the capture: nobody knows when
  end
  if answer and answer.time <= session.first_time then
    return nil
  end
  local c = facts.conversation
  local round_trip = c.connected and c.syns[1] and apart(c.connected.time, c.syns[1].time) or 0
  if session.first_packet ~= nonce.packet
    and (session.complete or apart(session.first_time, nonce.time) >= round_trip) then
    return nil -- a reply: two capture points whose clocks differ show the device's answer, before it, too late
  end
  local total = NONCE_SIZE
  for _, cut in ipairs(session.cuts) do
    if not answer or cut[1] < answer.packet then
      total = total + cut[2]
    end
  end
  return facts:finding("SPK201", "strong", {
    saw("The server sent " .. size(total) .. " before the device answered.", nonce.first_packet, session.first_packet),
  }, { because = constants.rules.words.BECAUSE_TOO_LONG, words = { size = total } })
end

--- SPK201: 1-39 bytes, or more than 40 before the device has answered.
function login.wrong_nonce(facts)
  local nonce = facts.nonce
  if not nonce or not facts.is_spark or facts.server.midway or facts.unseen == "server" then
    return nil
  end
  if nonce.complete then
    return long_nonce(facts)
  end
  return short_nonce(facts)
end

--- SPK202: the device never says who it is.
function login.nonce_not_answered(facts)
  local c, nonce, closing = facts.conversation, facts.nonce, facts.first_closing
  if not nonce or not nonce.complete or not facts.is_spark or facts.device.sent > 0 or facts.unseen == "device" then
    return nil
  end
  if facts.session and facts.session.sent > 0 then
    return nil -- SPK201: the server did not wait, or the device's answer is missing from the capture
  end
  local device_left = closing and closing.sender == "device"
  local waited = facts:waited(nonce.time)
  local enough = closing and (device_left and PROBE or SERVER_PATIENCE) or DEVICE_READ_LIMIT
  if waited < enough then
    return nil -- SPK104 if the greeting came when the device had given up; else too soon to call it silent
  end
  local evidence = {
    saw("The greeting came in packet " .. number(nonce.packet) .. "; no byte from the device in " .. duration(waited)
      .. ".", nonce.packet),
    facts:ending(),
  }
  if c.nonce_acked then
    evidence[3] = saw("It did arrive: " .. packets({ c.nonce_acked.packet }) .. " acknowledges it.",
      c.nonce_acked.packet)
  end
  local sure = c.nonce_acked and (not device_left or waited >= ENOUGH_SILENCE)
  return facts:finding("SPK202", sure and "strong" or "likely", evidence, {
    because = constants.rules.words.BECAUSE_DEVICE_HANGS,
    ruled_out = facts:passed(),
    silence = true,
  })
end

--- The packets that brought the identity, with the bytes of each; one that was cut by snaplen is one piece.
local function pieces_of(identity)
  local pieces, place = {}, {}
  for _, cut in ipairs(identity.cuts) do
    local packet = cut[1]
    if not place[packet] then
      pieces[#pieces + 1] = { packet, 0 }
      place[packet] = #pieces
    end
    local piece = pieces[place[packet]]
    piece[2] = piece[2] + cut[2]
  end
  return pieces
end

--- Bytes of the device's answer. A message long after it, to a server that does not reply, is none of it: an early
-- Core pings under a key of its own (PROTOCOL 9.2).
function login.identity_total(facts)
  local total = facts.device.sent
  for _, frame in ipairs(facts.conversation.first_frames) do
    if frame.sender == "device" and (frame.dead or apart(frame.time, facts.identity.time) > AT_ONCE) then
      total = total - frame.size
    end
  end
  return total
end

--- SPK203: the 256 bytes in several packets, or another size, and the server hangs up.
function login.identity_in_pieces(facts)
  local identity, closing = facts.identity, facts:closing("server")
  if not identity or not facts.nonce or not facts.is_spark or facts.session then
    return nil
  end
  if facts.unseen or not closing or (identity.missing > 0 and not identity.complete) then
    return nil
  end
  local pieces, total = pieces_of(identity), login.identity_total(facts)
  local after = apart(closing.time, identity.time)
  local how, because
  if identity.complete and total > IDENTITY_SIZE then
    how, because = constants.rules.words.HOW_OTHER_SIZE, constants.rules.words.BECAUSE_OTHER_SIZE
  elseif not identity.complete and after <= IDENTITY_WAIT then
    how, because = constants.rules.words.HOW_UNFINISHED, constants.rules.words.BECAUSE_NOT_WAITED
  elseif identity.complete and #pieces > 1 and after < AT_ONCE then
    how, because = constants.rules.words.HOW_IN_PIECES, constants.rules.words.BECAUSE_PIECES
  else
    return nil
  end
  local listed, at = {}, {}
  for index = 1, #pieces do
    at[index] = pieces[index][1]
    if index <= PIECES_TOLD then
      listed[index] = plural(pieces[index][2], "byte") .. " in packet " .. number(pieces[index][1])
    end
  end
  return facts:finding("SPK203", "likely", {
    { text = '"Who I am": ' .. table.concat(listed, ", ") .. ".", packets = at },
    saw("The server closed in " .. packets({ closing.packet }) .. " without a reply.", closing.packet),
  }, {
    because = because,
    ruled_out = facts:passed(),
    words = { how = fill(how, { total = number(total), size = IDENTITY_SIZE, pieces = #pieces }) },
  })
end

--- The server neither replies nor closes first: it looks for the device's key, or hangs.
local function no_reply(facts)
  local identity = facts.identity
  local waited = facts:waited(identity.time)
  if waited < ENOUGH_SILENCE or facts.device.acked < IDENTITY_SIZE then
    return nil -- too soon, or it never arrived
  end
  return facts:finding("SPK204", "likely", {
    saw('"Who I am" was whole in packet ' .. number(identity.packet) .. "; nothing from the server in "
      .. duration(waited) .. ".", identity.packet),
    facts:ending(),
  }, {
    summary = constants.rules.words.SAYS_NO_REPLY,
    because = constants.rules.words.BECAUSE_KEY_NOT_ON_FILE,
    ruled_out = facts:passed(),
    silence = true,
  })
end

--- SPK204: the server closes after 256 bytes without a reply, or never says anything more.
function login.refused_identity(facts)
  local identity, closing = facts.identity, facts.first_closing
  if not identity or not identity.complete or facts.session or not facts.is_spark then
    return nil
  end
  if facts.unseen == "server" or not facts.nonce or login.identity_total(facts) > IDENTITY_SIZE then
    return nil
  end
  if not closing or closing.sender == "device" then
    return no_reply(facts)
  end
  if rules.cut_by_limit(facts) then
    return nil -- SPK209: it was not "who I am" that the server refused
  end
  local waited = apart(closing.time, identity.time)
  local at_once = waited <= AT_ONCE
  if at_once and #pieces_of(identity) > 1 then
    return nil -- SPK203
  end
  if not at_once and facts.device.acked < facts.device.sent then
    return nil -- it may not have arrived
  end
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK301", constants.rules.words.RULED_KEY_NOT_REACHED)
  return facts:finding("SPK204", at_once and identity.received > 0 and "strong" or "likely", {
    saw('"Who I am" was whole in packet ' .. number(identity.packet) .. "; the server closed in "
      .. packets({ closing.packet }) .. ", " .. duration(max(0, waited)) .. " later, and sent nothing.",
      identity.packet, closing.packet),
  }, {
    because = at_once and constants.rules.words.BECAUSE_REFUSED_IDENTITY
      or constants.rules.words.BECAUSE_KEY_NOT_USABLE,
    ruled_out = ruled_out,
    silence = true,
  })
end

rules.login = login
