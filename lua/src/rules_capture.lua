-- SPK701-704, SPK801: what the capture itself allows, and what is not our protocol.

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local number, plural, size = wording.number, wording.plural, wording.size
local fill, saw = rules.fill, rules.saw
local PEER = rules.PEER
local max = math.max

local GAPS_TOLD = constants.rules.capture.GAPS_TOLD

local capture = {}

--- SPK701: no SYN, and the first bytes are not the login.
function capture.begun_midway(facts)
  local c = facts.conversation
  if not facts.midway or not facts.is_spark then
    return nil
  end
  if not (facts.device.midway or facts.server.midway) and facts.nonce then
    return nil -- only the SYN is missing: the login is all there
  end
  local summary
  if facts.session then
    summary = constants.rules.words.SAYS_INSIDE_LOGIN
  elseif facts.device.frames + facts.server.frames == 0 then
    summary = constants.rules.words.SAYS_NOTHING_WHOLE
  end
  return facts:finding("SPK701", "certain", {
    saw("No request to connect; packet " .. number(c.first_packet) .. " is already under way.", c.first_packet),
  }, { summary = summary })
end

--- SPK702: one end's packets are missing altogether.
function capture.one_way(facts)
  local missing = facts.unseen
  if not missing then
    return nil
  end
  local side = facts.conversation.sides[missing]
  local text = "Not one packet from the " .. missing .. " is in the capture"
  if side.acked > 0 or side.sent > 0 then
    text = text .. ", yet " .. size(max(side.acked, side.sent)) .. " of its data were acknowledged"
  end
  return facts:finding("SPK702", "certain", { saw(text .. ".", facts.conversation.first_packet) },
    { words = { sender = PEER[missing] } })
end

--- SPK703: holes and cut packets in this conversation.
function capture.bytes_missing(facts)
  local evidence, count, cut = {}, 0, 0
  for _, hole in ipairs(facts.conversation.holes) do
    if hole.sender ~= facts.unseen then
      count = count + 1
      if hole.reason == "cut" then
        cut = cut + hole.length
      elseif #evidence < GAPS_TOLD then
        local place = hole.before and "after packet " .. number(hole.before) or "at the start"
        local fate = hole.reason
        if fate == "lost" then
          fate = "never acknowledged"
        elseif fate == "not captured" then
          fate = "acknowledged in packet " .. number(hole.packet)
        end
        evidence[#evidence + 1] = saw(size(hole.length) .. " from the " .. hole.sender .. " " .. place .. ": " .. fate
          .. ".", hole.packet)
      end
    end
  end
  if count == 0 then
    return nil
  end
  if cut > 0 then
    evidence[#evidence + 1] = saw("Packets captured short (snaplen): " .. size(cut) .. " are missing.")
  end
  return facts:finding("SPK703", "certain", evidence)
end

--- SPK704: packets that the capture holds twice.
function capture.artefacts(facts)
  local copies = facts.device.quality.copies + facts.server.quality.copies
  if copies == 0 then
    return nil
  end
  return facts:finding("SPK704", "certain", {
    saw(plural(copies, "copy", "copies") .. " of packets already seen; not counted."),
  }, { words = { what = fill(constants.rules.words.TWICE, { packets = plural(copies, "packet") }) } })
end

local function client_began(facts)
  local device_first, server_first = facts.device.first_data, facts.server.first_data
  if spark.request_kind(facts.device.opening) then
    return true -- whatever the order: two capture points may show the answer first
  end
  return device_first and (not server_first or device_first.time < server_first.time)
end

--- SPK801: the connecting side speaks first, or the bytes parse as something else.
function capture.other_protocol(facts)
  local c = facts.conversation
  local first = facts.device.first_data or facts.server.first_data
  if not first then
    return nil
  end
  if c.kind == "coap-tcp" then
    return facts:finding("SPK801", "certain", {
      saw("Both sides begin with a CSM (7.01), and every message parses to its exact end.", first.packet),
    }, { words = { what = constants.rules.words.GENUINE_COAP } })
  end
  local name = constants.rules.words.PROTOCOLS[c.kind]
  if not name or facts.device.opening == "" or not client_began(facts) then
    return nil
  end
  return facts:finding("SPK801", "strong", {
    saw("The connecting side speaks first, with " .. wording.quote(facts.device.opening:sub(1, 16))
      .. "; on a Spark connection the server does.", first.packet),
  }, { words = { what = fill(constants.rules.words.CLIENT_FIRST, { name = name, port = c.server.port }) } })
end

rules.capture = capture
