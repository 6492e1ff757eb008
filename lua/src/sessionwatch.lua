-- What can be said of a running session from frame sizes and times alone: pings, and firmware updates.
--
-- It sees every frame of a conversation once and keeps counts and a few places, so its size does not depend on how
-- long the session was. What a frame says is not known here; what it probably is follows from the timers of the
-- firmware (PROTOCOL 6) and the sizes of the messages (DIAGNOSES 0.2).
--
-- A probable ping, the device's 18-byte frame after about 15 s without a word from the server, is {packet, time}. A
-- probable firmware update is a run of server frames of one chunk size, {size, begun_packet, first_packet, first_time,
-- last_packet, last_time, chunks, answered, asked, first_asked, last_asked, last_asked_time, server_since,
-- device_since, small_since, acknowledged}: `chunks` counts frames of that size, `answered` the device's 18-byte frames
-- between them, `asked` those at the 3 s rhythm of a chunk that is missed, since the last chunk; `server_since` and
-- `device_since` all other frames since then; `acknowledged` the server's 18-byte frames between chunks: it
-- acknowledged reports of missing ones. `begun_packet` is a server frame of UpdateBegin's size shortly before the
-- first chunk.

local constants = spark.constants

local SMALLEST_FRAME_ON_WIRE = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local CHUNK_SILENCE = constants.catalogue.CHUNK_SILENCE
local CHUNK_LATE = CHUNK_SILENCE * constants.sessionwatch.TOLERANCE + constants.sessionwatch.POLLED
local PING_SILENCE = constants.catalogue.PING_AFTER * (1 - constants.sessionwatch.TOLERANCE)
local QUIET = constants.sessionwatch.QUIET_NS / 1e9
local STALL = constants.sessionwatch.STALL / 1e9
local BEGIN = constants.sessionwatch.BEGIN / 1e9
local UPDATE_BEGIN_FRAME = constants.sessionwatch.UPDATE_BEGIN_FRAME
local CHUNKS_OF_AN_UPDATE = constants.sessionwatch.CHUNKS_OF_AN_UPDATE

local IS_CHUNK_FRAME = {}
for _, size in ipairs(constants.catalogue.CHUNK_FRAMES) do IS_CHUNK_FRAME[size] = true end

local abs, max, min = math.abs, math.max, math.min

local SessionWatch = {}
SessionWatch.__index = SessionWatch

--- Watches one session. Fields to read: `pings`, `pings_answered`, `ping_rtt` (shortest and longest, in seconds),
-- `unanswered` (a ping), `update` (nil while the run of frames is too short to be one).
function SessionWatch.new()
  return setmetatable({
    pings = 0,
    pings_answered = 0,
    ping_rtt = {},
    unanswered = nil,
    update = nil,
    run = nil, -- what may become an update
    last_server = nil, -- times
    last_device = nil,
    announced_packet = nil, -- the server's last frame of UpdateBegin's size
    announced_time = nil,
  }, SessionWatch)
end

local function last_word(run)
  return max(run.last_time, run.last_asked_time or run.last_time)
end

--- Whether a frame of a chunk's size belongs to the same run as those before it.
local function goes_on(run, frame)
  if run.size ~= frame.size then return run.chunks >= CHUNKS_OF_AN_UPDATE end
  return frame.time - last_word(run) <= STALL
end

local function take_chunk(watch, frame)
  local run = watch.run
  if run == nil or not goes_on(run, frame) then
    local known = watch.announced_time and frame.time - watch.announced_time <= BEGIN
    watch.update = nil
    watch.run = {
      size = frame.size,
      begun_packet = known and watch.announced_packet or nil,
      first_packet = frame.packet,
      first_time = frame.time,
      last_packet = frame.packet,
      last_time = frame.time,
      chunks = 1,
      answered = 0,
      asked = 0,
      first_asked = nil,
      last_asked = nil,
      last_asked_time = nil,
      server_since = 0,
      device_since = 0,
      small_since = 0,
      acknowledged = 0,
    }
  elseif run.size == frame.size then
    run.chunks = run.chunks + 1
    run.acknowledged = run.acknowledged + run.small_since
    run.small_since = 0
    run.last_packet, run.last_time = frame.packet, frame.time
    run.asked, run.server_since, run.device_since = 0, 0, 0
    run.first_asked, run.last_asked = nil, nil
    if run.chunks >= CHUNKS_OF_AN_UPDATE then watch.update = run end
  end
end

local function take_server(watch, frame)
  local ping, size, time = watch.unanswered, frame.size, frame.time
  if ping and time >= ping.time then
    watch.pings_answered = watch.pings_answered + 1
    local rtt, known = time - ping.time, watch.ping_rtt
    known[1], known[2] = min(rtt, known[1] or rtt), max(rtt, known[2] or rtt)
    watch.unanswered = nil
  end
  local run = watch.run
  if IS_CHUNK_FRAME[size] then
    take_chunk(watch, frame)
  elseif run then
    run.server_since = run.server_since + 1
    if size == SMALLEST_FRAME_ON_WIRE then run.small_since = run.small_since + 1 end
  end
  if size == UPDATE_BEGIN_FRAME then watch.announced_packet, watch.announced_time = frame.packet, time end
  watch.last_server = time
end

local function take_device(watch, frame)
  local small, time = frame.size == SMALLEST_FRAME_ON_WIRE, frame.time
  local server = watch.last_server
  if small and server and watch.unanswered == nil then
    local heard = max(server, watch.last_device or server)
    if time - server >= PING_SILENCE and time - heard >= QUIET then
      watch.pings = watch.pings + 1
      watch.unanswered = { packet = frame.packet, time = time }
    end
  end
  watch.last_device = time
  local run = watch.run
  if run == nil then return end
  run.device_since = run.device_since + 1
  if not small then return end
  run.answered = run.answered + 1
  if abs(time - last_word(run) - CHUNK_SILENCE) <= CHUNK_LATE then
    run.asked = run.asked + 1
    run.first_asked = run.first_asked or frame.packet
    run.last_asked, run.last_asked_time = frame.packet, time
  end
end

--- Takes the next frame, in the order they are cut.
function SessionWatch:take(frame)
  if frame.sender == "server" then take_server(self, frame) else take_device(self, frame) end
end

spark.SessionWatch = SessionWatch
