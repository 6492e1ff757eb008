-- What every rule asks of a conversation: how long was it watched, and what can this capture not tell?
-- And how a finding is made of a row of the table of findings.

local constants = spark.constants
local wording = spark.wording
local duration, fill, number, packets = wording.duration, wording.fill, wording.number, wording.packets
local floor = math.floor

local FINDINGS = constants.findings.FINDINGS
local PEER, SENDERS = spark.PEER, spark.SENDERS

-- What harms the connection, as a set; and the places of the words in their order, the worst and the surest first.
local BAD, SEVERITY_RANK, CONFIDENCE_RANK = {}, {}, {}
for _, severity in ipairs(constants.findings.BAD) do
  BAD[severity] = true
end
for place, severity in ipairs(constants.findings.SEVERITY_ORDER) do
  SEVERITY_RANK[severity] = place
end
for place, confidence in ipairs(constants.findings.CONFIDENCE_ORDER) do
  CONFIDENCE_RANK[confidence] = place
end

--- Whether a finding is to be shown before another: most severe, then most sure, then most specific. Nil when they do
-- not differ in any of that.
local function is_before(one, other)
  if one.severity ~= other.severity then
    return SEVERITY_RANK[one.severity] < SEVERITY_RANK[other.severity]
  end
  if one.confidence ~= other.confidence then
    return CONFIDENCE_RANK[one.confidence] < CONFIDENCE_RANK[other.confidence]
  end
  if one.specific ~= other.specific then
    return one.specific > other.specific
  end
  return nil
end

--- Seconds between two times, to the nanosecond: without rounding, a wait of just 20 s could come out below it.
local function apart(later, earlier)
  return floor((later - earlier) * 1e9 + 0.5) / 1e9
end

--- One observation: a sentence, and the packets it rests on.
local function saw(text, ...)
  return { text = text, packets = { ... } }
end

--- A look-alike that this capture excludes, and by what.
local function not_it(code, because)
  return { code = code, because = because }
end

local Facts = {}
Facts.__index = Facts

--- The end none of whose packets were captured although the other's prove that there were some; nil if there is none.
local function unseen_end(conversation)
  for _, sender in ipairs(SENDERS) do
    local seen, other = conversation.sides[sender], conversation.sides[PEER[sender]]
    if seen.quality.packets == 0 then
      if other.quality.packets > 0 and (seen.acked > 0 or seen.sent > 0) then
        return sender
      end
      if other.quality.data_segments > 0 then
        return sender -- it cannot have sent data on a connection that was never accepted
      end
    end
  end
  return nil
end

--- Time up to which a silence can be claimed: the first close, else the capture's last packet. A device that dials
-- again has left its connection, though the capture may not show how.
local function end_of_watch(conversation, trace, dialled_again)
  if conversation.closings[1] then
    return conversation.closings[1].time
  end
  local last = trace.last or conversation.end_time
  if dialled_again and dialled_again > conversation.end_time and dialled_again < last then
    return dialled_again
  end
  return last
end

--- The most that may be claimed from silences in a conversation.
local function cap_of(facts)
  if facts.unseen or facts.cut then
    return "likely"
  end
  for _, part in ipairs({ facts.nonce or false, facts.identity or false, facts.session or false }) do
    if part and part.missing > 0 then
      return "strong"
    end
  end
  return "certain"
end

--- One conversation, brought up to date, with the questions that several rules ask of it. `dialled_again` is the time
-- at which the device began its next connection to this server, or nil.
function Facts.new(conversation, trace, dialled_again)
  local facts = setmetatable({
    conversation = conversation,
    trace = trace,
    nonce = conversation:part("nonce"),
    identity = conversation:part("identity"),
    session = conversation:part("session"),
    device = conversation.sides.device,
    server = conversation.sides.server,
    reached = conversation.reached,
    midway = conversation.midway,
    hello = conversation.hello,
    server_hello = conversation.server_hello,
    update = conversation.watch.update,
    is_spark = conversation.kind == "spark",
    unseen = unseen_end(conversation),
    watched_until = end_of_watch(conversation, trace, dialled_again),
    first_closing = conversation.closings[1],
    cut = false,
  }, Facts)
  for _, hole in ipairs(conversation.holes) do
    facts.cut = facts.cut or hole.reason == "cut"
  end
  facts.cap = cap_of(facts)
  return facts
end

--- The first FIN or RST of that end, or nil.
function Facts:closing(sender)
  for _, closing in ipairs(self.conversation.closings) do
    if closing.sender == sender then
      return closing
    end
  end
  return nil
end

--- Whether the other end acknowledged all that this one is known to have sent. Where the other end was not captured,
-- data that were not repeated count as delivered.
function Facts:delivered(sender)
  local side = self.conversation.sides[sender]
  if self.unseen == PEER[sender] then
    return side.quality.retransmitted == 0
  end
  return side.acked >= side.sent
end

--- Seconds since `time` in which nothing more was seen of what was waited for.
function Facts:waited(time)
  return apart(self.watched_until, time)
end

--- How the attempt ended, as evidence.
function Facts:ending()
  local closing = self.first_closing
  if not closing then
    return saw("The capture ends before either side closes.")
  end
  local how = closing.how == "rst" and "cut the connection off" or "closed"
  return saw("The " .. closing.sender .. " " .. how .. " in " .. packets({ closing.packet }) .. ".", closing.packet)
end

--- What a login that got as far as this one excludes.
function Facts:passed()
  local done, ruled = {}, {}
  for _, kind in ipairs({ "nonce", "identity", "session" }) do
    local part = self[kind]
    if part and part.complete and part.received > 0 then
      done[#done + 1] = part
    end
  end
  if #done > 1 then
    local listed = {}
    for index, part in ipairs(done) do
      listed[index] = part.packet
    end
    ruled[1] = not_it("SPK101", fill(constants.rules.words.RULED_IN_TIME, {
      packets = packets(listed),
      duration = duration(done[#done].time - done[1].first_time),
    }))
  end
  if self.nonce and self.nonce.data then
    local is_random = fill(constants.rules.words.RULED_RANDOM, { packet = number(self.nonce.packet) })
    ruled[#ruled + 1] = not_it("SPK103", is_random)
  end
  return ruled
end

--- The packet at which a finding is best shown: where the first thing seen was complete.
local function shown_at(evidence, conversation)
  for _, item in ipairs(evidence) do
    if item.packets[1] then
      return item.packets[#item.packets]
    end
  end
  return conversation.last_packet
end

--- Make a finding about this conversation. `more` may have: summary, because, ruled_out, severity (where the harm seen
-- is not the usual one), silence (it rests on nothing having come), words (what the usual sentence has in braces).
function Facts:finding(code, confidence, evidence, more)
  more = more or {}
  local spec, conversation = FINDINGS[code], self.conversation
  local words = { server = conversation.server.ip, port = conversation.server.port, mac = "" }
  for name, value in pairs(more.words or {}) do
    words[name] = value
  end
  if more.silence and CONFIDENCE_RANK[self.cap] > CONFIDENCE_RANK[confidence] then
    confidence = self.cap
  end
  return {
    code = code,
    severity = more.severity or spec.severity,
    confidence = confidence,
    summary = more.summary or fill(spec.says, words),
    evidence = evidence,
    because = more.because or "",
    ruled_out = more.ruled_out or {},
    packet = shown_at(evidence, conversation),
    specific = spec.specific,
  }
end

spark.rules = {
  Facts = Facts,
  apart = apart,
  fill = fill,
  saw = saw,
  not_it = not_it,
  is_before = is_before,
  BAD = BAD,
  SENDERS = SENDERS,
  PEER = PEER,
}
