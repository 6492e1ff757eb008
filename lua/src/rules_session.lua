-- SPK001, SPK501-508, SPK601, SPK602: how a session goes on, what ends it, and what came after it.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, plural = wording.duration, wording.number, wording.packets, wording.plural
local apart, fill, saw = rules.apart, rules.fill, rules.saw
local PEER, SENDERS = rules.PEER, rules.SENDERS
local max = math.max

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local PING_ANSWER_LIMIT = constants.catalogue.PING_ANSWER_LIMIT
local STALL = constants.sessionwatch.STALL / 1e9
local STORM_SHARE = constants.rules.session.STORM_SHARE
local STORM_SEGMENTS = constants.rules.session.STORM_SEGMENTS
local GIVEN_UP_TRIES = constants.rules.session.GIVEN_UP_TRIES
local GIVEN_UP_AFTER = constants.rules.session.GIVEN_UP_AFTER / 1e9
local ASKS = constants.rules.session.ASKS
local REPORTS = constants.rules.session.REPORTS
local ANSWER_SLACK = constants.rules.session.ANSWER_SLACK
local PATIENT = constants.rules.session.PATIENT
local CARRIES_ON = constants.rules.session.CARRIES_ON
local DEAD_SILENCE = constants.rules.device.DEAD_SILENCE / 1e9
local GONE = constants.rules.device.GONE / 1e9
local ANSWERS_A_FIN = constants.rules.device.ANSWERS_A_FIN / 1e9
local OVERLAP = constants.rules.device.OVERLAP / 1e9

local session, device = {}, {}

-- A session ----------------------------------------------------------------------------------------------------------

--- SPK001: login complete, and messages after it.
function session.healthy(facts)
  local c = facts.conversation
  if facts.reached ~= "established" or not facts.is_spark or facts.device.midway or facts.server.midway then
    return nil
  end
  local evidence, answer, watch = {}, facts.server_hello, c.watch
  if answer then
    evidence[1] = saw("Packet " .. number(answer.packet) .. ": a server says hello only after it has opened a hello.",
      answer.packet)
  end
  local legal = not facts.device.lost[1] and not facts.server.lost[1]
  evidence[#evidence + 1] = saw((legal and "All " or "Not all of the ")
    .. plural(facts.device.frames + facts.server.frames, "message") .. " have legal lengths.")
  if watch.pings_answered > 0 then
    evidence[#evidence + 1] = saw("When idle, the device pings and is answered ("
      .. plural(watch.pings_answered, "time") .. ").")
  end
  return facts:finding("SPK001", "strong", evidence, { silence = true })
end

--- Frames of one sender among the last ones that came after a time.
local function frames_after(facts, sender, time)
  local count = 0
  for _, frame in ipairs(facts.conversation.last_frames) do
    if frame.sender == sender and frame.time > time then
      count = count + 1
    end
  end
  return count
end

--- Whether a direction has a hole before an offset.
local function has_hole_before(conversation, sender, offset)
  for _, hole in ipairs(conversation.holes) do
    if hole.sender == sender and hole.offset <= offset then
      return true
    end
  end
  return false
end

--- SPK501: a length that cannot be one, without a hole before it.
function session.framing_lost(facts, findings)
  local c = facts.conversation
  if facts.reached ~= "established" or facts.device.midway or facts.server.midway or not facts.is_spark then
    return
  end
  for _, sender in ipairs(SENDERS) do
    local lost = c.sides[sender].lost[1]
    if lost and lost.offset ~= NONCE_SIZE + SESSION_SIZE and not has_hole_before(c, sender, lost.offset)
      -- Who has lost the framing waits for the rest and says nothing.
      and frames_after(facts, PEER[sender], lost.time) < CARRIES_ON then
      findings[#findings + 1] = facts:finding("SPK501", "strong", {
        saw("Packet " .. number(lost.packet) .. ": a length of " .. number(lost.field) .. " from the " .. sender
          .. ", where a message should begin.", lost.packet),
      }, { words = { packet = number(lost.packet) } })
    end
  end
end

--- SPK503: nothing from the server for 10 s after a ping that TCP delivered.
function session.ping_unanswered(facts)
  local c, server = facts.conversation, facts.server
  local ping, update = c.watch.unanswered, facts.update
  if not ping or not facts.is_spark or facts.unseen or facts.reached ~= "established" then
    return nil
  end
  if update and apart(update.last_time, ping.time) > -STALL then
    return nil -- SPK601, SPK602: in an update the device asks for chunks
  end
  local waited = facts:waited(ping.time)
  if waited < PING_ANSWER_LIMIT * ANSWER_SLACK or facts.device.acked < facts.device.sent then
    return nil -- too soon; or SPK505: it was not even delivered
  end
  if frames_after(facts, "device", ping.time + PING_ANSWER_LIMIT * PATIENT) > 0 then
    return nil -- the device goes on longer than it waits for an answer to a ping: then it was none
  end
  if server.rest > 0 then
    return nil
  end
  for _, hole in ipairs(server.sent > server.captured and c.holes or {}) do
    if hole.sender == "server" and hole.time >= ping.time then
      return nil -- bytes from the server behind the ping are missing
    end
  end
  local evidence = {
    saw("Packet " .. number(ping.packet) .. ": a ping of the device, acknowledged; no message came in "
      .. duration(waited) .. ".", ping.packet),
  }
  local closing = facts.first_closing
  if closing and closing.sender == "device" then
    evidence[2] = saw("The device then hung up (" .. packets({ closing.packet }) .. ").", closing.packet)
  end
  return facts:finding("SPK503", "strong", evidence,
    { because = constants.rules.words.BECAUSE_SERVER_HANGS, silence = true })
end

--- SPK505: data repeated; major only when the connection ended by it.
function session.packets_lost(facts, findings)
  if facts.unseen or not facts.is_spark then
    return
  end
  for _, sender in ipairs(SENDERS) do
    local side = facts.conversation.sides[sender]
    local quality, since = side.quality, side.unacked_since
    local given_up = side.unacked_tries >= GIVEN_UP_TRIES and side.acked < side.sent and since
    if given_up and not facts.first_closing then
      given_up = facts:waited(since.time) >= GIVEN_UP_AFTER
    end
    if given_up then
      findings[#findings + 1] = facts:finding("SPK505", "strong", {
        saw("Data of packet " .. number(since.packet) .. " from the " .. sender .. " was sent "
          .. plural(side.unacked_tries, "time") .. " and never acknowledged.", since.packet),
      }, {
        because = fill(constants.rules.words.BECAUSE_NOTHING_ARRIVES, { sender = sender }),
        words = { sender = sender },
      })
    elseif quality.data_segments >= STORM_SEGMENTS and quality.retransmitted / quality.data_segments > STORM_SHARE then
      findings[#findings + 1] = facts:finding("SPK505", "strong", {
        saw(number(quality.retransmitted) .. " of " .. plural(quality.data_segments, "data packet") .. " from the "
          .. sender .. " are repeats."),
      }, { summary = fill(constants.rules.words.SAYS_SURVIVES, { sender = sender }), severity = "minor" })
    end
  end
end

--- SPK601 and SPK602: an update that stops.
function session.update_fails(facts)
  local update = facts.update
  if not update or not facts.is_spark or facts.unseen then
    return nil
  end
  local words = { chunks = update.chunks }
  if update.asked >= ASKS and update.last_asked then
    local evidence = {
      saw("After the last chunk (packet " .. number(update.last_packet) .. ") the device asked "
        .. plural(update.asked, "time") .. " at intervals of 3 s, and no chunk came any more.", update.first_asked,
        update.last_asked),
    }
    if update.acknowledged >= REPORTS then
      return facts:finding("SPK602", "strong", evidence,
        { because = constants.rules.words.BECAUSE_SERVER_GAVE_UP, silence = true, words = words })
    end
    return facts:finding("SPK601", "strong", evidence, {
      summary = fill(constants.rules.words.SAYS_NO_MORE_CHUNKS, { chunks = plural(update.chunks, "chunk") }),
      because = constants.rules.words.BECAUSE_SERVER_STOPPED,
      silence = true,
    })
  end
  local waited = facts:waited(update.last_time)
  local looks_real = update.begun_packet or update.answered >= update.chunks - 1
  if update.device_since > 0 or update.server_since > 0 or waited < STALL or not looks_real then
    return nil
  end
  return facts:finding("SPK601", "likely", {
    saw("The last chunk is in packet " .. number(update.last_packet) .. "; the device sends nothing in "
      .. duration(waited) .. ".", update.last_packet),
  }, { because = constants.rules.words.BECAUSE_DEVICE_STOPPED, silence = true, words = words })
end

-- What came after it -------------------------------------------------------------------------------------------------

--- One end closes after a long silence of the other, which never answers that either: it was gone.
local function closed_on_nobody(facts)
  local c, closing = facts.conversation, facts.first_closing
  local gone = PEER[closing.sender]
  local last = c.sides[gone].last_any
  if closing.how ~= "fin" or not last or apart(closing.time, last.time) < GONE
    or apart(facts.trace.last or c.end_time, closing.time) < ANSWERS_A_FIN then
    return nil
  end
  return facts:finding("SPK505", "likely", {
    saw("The " .. closing.sender .. " closes in packet " .. number(closing.packet) .. ", "
      .. duration(closing.time - last.time) .. " after the last packet from the " .. gone .. "; the " .. gone
      .. " does not answer that either.", last.packet, closing.packet),
  }, {
    summary = fill(constants.rules.words.SAYS_GOES_DEAD, { sender = gone }),
    because = fill(constants.rules.words.BECAUSE_LOST_LINK, { sender = gone }),
  })
end

--- The device connected anew without having closed this connection: it restarted, lost power or lost its link.
local function came_back(facts, later)
  local c = facts.conversation
  if not later.syns[1] or apart(later.start_time, c.end_time) <= -OVERLAP then
    return nil
  end
  return facts:finding("SPK508", "likely", {
    saw("The connection of packets " .. number(c.first_packet) .. " to " .. number(c.last_packet)
      .. " was never closed; " .. duration(max(0, later.start_time - c.end_time))
      .. " after its last packet the device connects anew (" .. packets({ later.first_packet }) .. ").",
      c.last_packet, later.first_packet),
  }, { summary = constants.rules.words.SAYS_CAME_BACK, severity = "minor" })
end

local function went_silent(facts)
  local c, update = facts.conversation, facts.update
  local quiet = apart(facts.trace.last or c.end_time, c.end_time)
  if quiet < DEAD_SILENCE or (update and update.server_since > 0) then
    return nil -- too short to tell, or the restart after an update
  end
  local last = facts.device.last_any
  return facts:finding("SPK505", "likely", {
    saw("Nobody closed the connection, and no packet of it comes in the last " .. duration(quiet)
      .. " of the capture; a living device pings after 15 s.", last and last.packet),
  }, {
    summary = constants.rules.words.SAYS_NEVER_CLOSED,
    because = fill(constants.rules.words.BECAUSE_LOST_LINK, { sender = "device" }),
  })
end

--- SPK505 and SPK508 of a session that came up and was never closed properly. `later` is the device's next connection,
-- to whatever server, or nil.
function device.left_open(facts, later)
  if facts.reached ~= "established" or not facts.is_spark or facts.unseen then
    return nil
  end
  if facts.first_closing then
    return closed_on_nobody(facts)
  end
  if later then
    return came_back(facts, later)
  end
  return went_silent(facts)
end

rules.running, rules.device = session, device
