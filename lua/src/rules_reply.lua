-- SPK205-209: the server has replied. Can the device use it, and does it come in time?

local constants = spark.constants
local wording, rules = spark.wording, spark.rules
local duration, number, packets, size = wording.duration, wording.number, wording.packets, wording.size
local apart, fill, saw, not_it = rules.apart, rules.fill, rules.saw, rules.not_it
local abs, max, upper = math.abs, math.max, string.upper

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local DEVICE_READ_LIMIT = constants.catalogue.DEVICE_READ_LIMIT
local SERVER_LOGIN_LIMITS = constants.catalogue.SERVER_LOGIN_LIMITS
local AT_ONCE = constants.rules.facts.AT_ONCE / 1e9
local LATE_HELLO = constants.rules.reply.LATE_HELLO / 1e9
local ROUND_TRIP = constants.rules.reply.ROUND_TRIP / 1e9
local NEARLY = constants.rules.reply.NEARLY
local HELLO_WAIT = constants.recognition.together.HELLO_WAIT
local G2B, G2B_OR_G2C = constants.messages.peers.G2B, constants.messages.peers.G2B_OR_G2C
local DEAD_TOLD = constants.rules.reply.DEAD_TOLD
local REPLY_ENDS = constants.rules.reply.REPLY_ENDS
local SLOW_DEVICE = constants.rules.reply.SLOW_DEVICE / 1e9
local SLOW_SERVER = constants.rules.reply.SLOW_SERVER / 1e9
local SLOW_LOGIN = constants.rules.reply.SLOW_LOGIN / 1e9
local TIMER_SLACK = constants.rules.reply.TIMER_SLACK
local HELLO_SIZES = {}
for _, bytes in ipairs(constants.catalogue.HELLO_FRAMES) do
  HELLO_SIZES[bytes] = true
end

local reply = {}

--- When bytes followed the 384 that cannot begin a message, nil without such bytes.
local function reply_goes_on(facts)
  for _, lost in ipairs(facts.server.lost) do
    if lost.offset == REPLY_ENDS then
      return lost.time
    end
  end
  return nil
end

--- Whether the bytes after the 384 came with them and are no message, so that they belong to the reply.
local function too_long(facts)
  local lost = reply_goes_on(facts)
  return lost and facts.device.frames == 0 and apart(lost, facts.session.time) <= AT_ONCE
end

--- SPK205: another number of bytes than 384.
function reply.wrong_reply(facts)
  local session, identity = facts.session, facts.identity
  if not session or not identity or not facts.is_spark or facts.server.midway or facts.unseen then
    return nil
  end
  if session.first_time < identity.first_time or identity.missing > 0 or not facts.nonce
    or facts.nonce.received == 0 then
    return nil -- it is not known where the reply begins
  end
  if session.complete then
    if not too_long(facts) then
      return nil
    end
  elseif not facts.first_closing and facts:waited(session.time) < DEVICE_READ_LIMIT then
    return nil
  elseif not facts:delivered("server") then
    return nil -- the rest may be lost
  end
  local total = facts.server.sent - NONCE_SIZE
  return facts:finding("SPK205", "strong", {
    saw("The reply in packet " .. number(session.packet) .. " has " .. size(total) .. ".", session.packet),
    facts:ending(),
  }, {
    because = constants.rules.words.BECAUSE_SIZE_OF_KEY,
    ruled_out = facts:passed(),
    silence = not session.complete,
    words = { size = number(total) },
  })
end

--- The device's frames since the reply: those under a dead key, and the first that may be genuine.
local function frames_after_reply(facts)
  local since = facts.session.first_time
  local dead = {}
  for _, frame in ipairs(facts.conversation.dead_frames) do
    if frame.time >= since then
      dead[#dead + 1] = frame
    end
  end
  for _, frame in ipairs(facts.conversation.first_frames) do
    if frame.sender == "device" and not frame.dead and frame.time >= since then
      return dead, frame
    end
  end
  return dead, nil
end

--- Whether the device's silence may mean nothing, or another rule has the word.
local function is_doubtful(facts, live)
  local c, session, device = facts.conversation, facts.session, facts.device
  if device.skipped > 0 or (device.sent > IDENTITY_SIZE and not live) then
    return true -- something came from the device that was not captured whole
  end
  if live and apart(live.time, session.time) < LATE_HELLO then
    return true -- SPK208
  end
  if not c.reply_acked then
    if facts.unseen == "server" or not (facts.unseen == "device" and facts:delivered("server")) then
      return true -- the reply may not have arrived
    end
  end
  if facts.unseen == "device" and facts.midway then
    return true
  end
  local closing = facts.first_closing
  if live then
    return not closing and facts:waited(live.time) < LATE_HELLO
  end
  return (not closing or closing.sender == "server") and facts:waited(session.time) < LATE_HELLO
end

local function server_took_it(facts)
  local because = fill(constants.rules.words.RULED_SERVER_TOOK_IT, { packet = number(facts.session.packet) })
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK302", because)
  ruled_out[#ruled_out + 1] = not_it("SPK304", because)
  return ruled_out
end

local function is_dead(frame)
  return saw("Packet " .. number(frame.packet) .. " is " .. wording.with_article(frame.dead) .. ".", frame.packet)
end

--- SPK206 and SPK207: the device cannot use the reply.
function reply.silent_after_reply(facts, findings)
  local session, server = facts.session, facts.server
  if not session or not session.complete or not facts.is_spark then
    return
  end
  if server.sent > REPLY_ENDS and (server.frames > 0 or not server.lost[1]) then
    return -- the server goes on talking: it has had a hello, seen or not
  end
  if reply_goes_on(facts) then
    return -- SPK205
  end
  local dead, live = frames_after_reply(facts)
  if dead[1] then
    local evidence = {}
    for index = 1, #dead < DEAD_TOLD and #dead or DEAD_TOLD do
      evidence[index] = is_dead(dead[index])
    end
    findings[#findings + 1] = facts:finding("SPK207", "certain", evidence, {
      because = constants.rules.words.BECAUSE_CANNOT_USE_IT,
      ruled_out = server_took_it(facts),
    })
  elseif is_doubtful(facts, live) then
    return
  end
  local closing, watched = facts.first_closing, facts:waited(session.time)
  local instead
  if closing and closing.sender == "device" and not dead[1] and not live then
    instead = saw("Instead of a hello the device closed, " .. duration(watched) .. " after the reply ("
      .. packets({ closing.packet }) .. ").", closing.packet)
  else
    instead = facts:ending()
    instead.text = "No hello from the device in " .. duration(watched) .. ". " .. instead.text
  end
  findings[#findings + 1] = facts:finding(
    "SPK206",
    (dead[1] or closing or watched >= DEVICE_READ_LIMIT) and "strong" or "likely",
    {
      saw("Packet " .. number(session.packet) .. ': the server replied to "who I am", so it could read it.',
        session.packet),
      instead,
    },
    { because = constants.rules.words.BECAUSE_OTHER_KEY, ruled_out = server_took_it(facts), silence = true }
  )
end

--- SPK207 where no reply ever came: it proves that the device is not logged in, not why.
function reply.dead_without_reply(facts)
  local frame = facts.conversation.dead_frames[1]
  if not frame or (facts.session and facts.session.complete) then
    return nil
  end
  return facts:finding("SPK207", "certain", { is_dead(frame) }, {
    summary = constants.rules.words.SAYS_NOT_LOGGED_IN,
    severity = "info",
  })
end

--- How long (s) this device waits for the server's hello, at least: the firmware is that of its own hello.
local function patience(facts)
  local secrets = facts.trace.keys and facts.conversation.secrets
  local generation = secrets and secrets.reader and secrets.reader.generation
  if generation == G2B_OR_G2C then
    generation = G2B
  end
  for _, known in ipairs(HELLO_WAIT) do
    if generation and known[1][generation] then
      return max(ROUND_TRIP, known[2] * NEARLY)
    end
  end
  return ROUND_TRIP
end

--- Whether the server's silence after a hello may mean nothing.
local function is_hello_doubtful(facts, hello)
  local closing = facts.first_closing
  local waited = facts:waited(hello.time)
  if facts.session.received == 0 then
    return true -- when the reply came, and so what the device's message is, is not known
  end
  if not closing then
    if waited < LATE_HELLO then
      return true
    end
  elseif closing.sender == "device" then
    if waited < patience(facts) then
      return true
    end
  elseif waited <= AT_ONCE then
    return false
  end
  return facts.device.acked < facts.device.sent
end

--- SPK208: a hello in time, and nothing from the server.
function reply.hello_not_answered(facts)
  local c, session = facts.conversation, facts.session
  local hello = facts.hello
  if not session or not session.complete or not hello or not facts.is_spark or c.dead_frames[1] then
    return nil
  end
  if facts.server.sent > REPLY_ENDS or facts.unseen == "server" or hello.follows_gap then
    return nil
  end
  if apart(hello.time, session.time) >= LATE_HELLO or not HELLO_SIZES[hello.size]
    or is_hello_doubtful(facts, hello) then
    return nil
  end
  local ruled_out = facts:passed()
  ruled_out[#ruled_out + 1] = not_it("SPK207", constants.rules.words.RULED_NOT_DEAD)
  return facts:finding("SPK208", "strong", {
    saw("Packet " .. number(hello.packet) .. ": hello from the device; no message from the server in "
      .. duration(facts:waited(hello.time)) .. ".", hello.packet),
    facts:ending(),
  }, { because = constants.rules.words.BECAUSE_SERVER_AT_FAULT, ruled_out = ruled_out, silence = true })
end

--- The steps of the login that were seen: how long they took (s), from when on that is slow, in words, and the packet.
local function steps_of(facts)
  local nonce, identity, session, hello = facts.nonce, facts.identity, facts.session, facts.hello
  local steps = {}
  if not nonce or not identity or nonce.received == 0 or identity.received == 0 or not identity.complete then
    return steps
  end
  steps[1] = { apart(identity.time, nonce.time), SLOW_DEVICE, constants.rules.words.STEP_IDENTITY, identity.packet }
  if not session or session.received == 0 or not session.complete then
    return steps
  end
  steps[2] = { apart(session.time, identity.time), SLOW_SERVER, constants.rules.words.STEP_REPLY, session.packet }
  if hello then
    steps[3] = { apart(hello.time, session.time), SLOW_DEVICE, constants.rules.words.STEP_HELLO, hello.packet }
  end
  return steps
end

--- The server's limit for a whole login (s) when it ended this attempt and a slow step is the reason, else nil.
function rules.cut_by_limit(facts)
  local c, closing = facts.conversation, facts.first_closing
  if not closing or closing.sender ~= "server" or not c.connected or facts.reached == "established" then
    return nil
  end
  local is_slow = false
  for _, step in ipairs(steps_of(facts)) do
    is_slow = is_slow or step[1] > step[2]
  end
  if not is_slow then
    return nil
  end
  local lasted = apart(closing.time, c.connected.time)
  for _, limit in ipairs(SERVER_LOGIN_LIMITS) do
    if abs(lasted - limit) <= TIMER_SLACK * limit then
      return limit
    end
  end
  return nil
end

--- SPK209: it works, but a timer is near; or the server's timer has cut the login in a slow step.
function reply.slow(facts)
  local steps, limit = steps_of(facts), rules.cut_by_limit(facts)
  if not steps[1] or (facts.reached ~= "established" and not limit) then
    return nil
  end
  local total, slowest, evidence = 0, steps[1], {}
  for _, step in ipairs(steps) do
    total = total + step[1]
    if step[1] / step[2] > slowest[1] / slowest[2] then
      slowest = step
    end
    if step[1] > step[2] then
      local text = fill(step[3], { [""] = duration(step[1]) })
      evidence[#evidence + 1] = saw(upper(text:sub(1, 1)) .. text:sub(2) .. ".", step[4])
    end
  end
  if slowest[1] <= slowest[2] and apart(total, SLOW_LOGIN) <= 0 then
    return nil
  end
  local repeats = facts.device.quality.retransmitted + facts.server.quality.retransmitted > 0
  local slowest_step = fill(slowest[3], { [""] = duration(slowest[1]) })
  local more = { words = { total = duration(total), step = slowest_step } }
  if limit then
    evidence[#evidence + 1] = facts:ending()
    local values = { limit = number(limit), step = slowest_step }
    more.summary = fill(constants.rules.words.SAYS_CUT_BY_LIMIT, values)
    more.because = fill(constants.rules.words.BECAUSE_CUT_BY_LIMIT, values)
    more.severity = "major"
  end
  return facts:finding("SPK209", (repeats or limit) and "likely" or "strong", evidence, more)
end

rules.reply = reply
