-- What protocol a conversation speaks, told from its first bytes and from who spoke first; and, before that, whose the
-- bytes of a segment are: ours, or those of genuine CoAP over TCP (RFC 8323) on the same port.

local constants = spark.constants
local chain = spark.chain

local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local IDENTITY_SIZE = constants.catalogue.IDENTITY_SIZE
local SESSION_SIZE = constants.catalogue.SESSION_SIZE
local SMALLEST_FRAME = constants.catalogue.SMALLEST_FRAME_ON_WIRE
local PRINTABLE_SHARE = constants.kinds.PRINTABLE_SHARE
local FEWEST_LETTERS = constants.kinds.FEWEST_LETTERS
local LETTERS_WHEN_CUT = constants.kinds.LETTERS_WHEN_CUT
local PLENTY = constants.kinds.PLENTY
local TLS_RECORDS = constants.kinds.TLS_RECORDS
local CLIENT_HELLO = constants.kinds.CLIENT_HELLO
local LARGEST_RECORD = constants.kinds.LARGEST_RECORD
local COAP_MESSAGES = constants.kinds.COAP_MESSAGES
local CSM = constants.kinds.CSM
local EXTENDED = constants.kinds.EXTENDED
local LONGEST_TOKEN = constants.kinds.LONGEST_TOKEN
local OPENING = constants.handshake.OPENING
local MARKS = constants.kinds.MARKS
local REQUESTS = constants.kinds.REQUESTS
local CODE_CLASSES = {}
for _, class in ipairs(constants.kinds.CODE_CLASSES) do CODE_CLASSES[class] = true end

local LOST_LISTED = constants.frames.LOST_LISTED
-- Frames for each place where framing was lost, from which a run of frames is believed.
local BELIEVED = constants.frames.CHAIN + 1

local byte, gsub, sub = string.byte, string.gsub, string.sub
local floor, max = math.floor, math.max

-- -- single openings ---------------------------------------------------------------------------------------------

--- Whether the first 40 bytes (8 at least) are text, and so no nonce.
local function is_text(data)
  local head = sub(data, 1, NONCE_SIZE)
  if #head < FEWEST_LETTERS then return false end
  local _, printable = gsub(head, "[ -~\t\n\r]", "")
  return printable >= PRINTABLE_SHARE * #head
end

local function starts_with(data, mark)
  return sub(data, 1, #mark) == mark
end

--- Whether a TLS record of this type begins here: version 3.0 to 3.4 and a length that TLS allows.
local function is_tls_record(opening, mark)
  local minor, high, low = byte(opening, 3, 5)
  if low == nil or minor > 4 or not starts_with(opening, mark) then return false end
  local length = high * 256 + low
  return length > 0 and length <= LARGEST_RECORD
end

--- Names the service that greets with these bytes, nil when they may be a nonce. `first` is how many of them came in
-- the first packet, which is all there; nil when it is not, and then more text is asked for. A line of text is a
-- greeting whatever follows it.
local function service(opening, first)
  for _, mark in ipairs(MARKS) do
    if starts_with(opening, mark[1]) then return mark[2] end
  end
  for _, mark in ipairs(TLS_RECORDS) do
    if is_tls_record(opening, mark) then return "tls" end
  end
  if first == nil and #opening < LETTERS_WHEN_CUT then return nil end
  local line = sub(opening, 1, first or -1)
  return (is_text(opening) or sub(line, -1) == "\n" and is_text(line)) and "other" or nil
end

--- Names the protocol that a client begins with these bytes, nil when they may be a device's.
local function request_kind(opening)
  if is_tls_record(opening, TLS_RECORDS[1]) and sub(opening, 6, 6) == CLIENT_HELLO then return "tls" end
  for _, mark in ipairs(REQUESTS) do
    if starts_with(opening, mark) then return "http" end
  end
  return nil
end

-- -- genuine CoAP over TCP ---------------------------------------------------------------------------------------

--- Reads the head of an RFC 8323 message at `position` (from 0): returns the position behind the message, its code and
-- the length of its token. Nothing when the head is not all there; nil and false when no message begins like this.
local function coap_message(data, position)
  local first = byte(data, position + 1)
  local length, token = floor(first / 16), first % 16
  if token > LONGEST_TOKEN then return nil, false end
  local extended = EXTENDED[length]
  local extra = extended and extended[1] or 0
  local code = byte(data, position + extra + 2)
  if code == nil then return nil end
  if not CODE_CLASSES[floor(code / 32)] then return nil, false end
  if extended then
    length = 0
    for index = position + 2, position + 1 + extra do length = length * 256 + byte(data, index) end
    length = length + extended[2]
  end
  return position + 2 + extra + token + length, code, token
end

--- Counts whole RFC 8323 messages from the start. Returns the count (0 if one is impossible), the first message's code,
-- and whether they end exactly with the data. A message that runs beyond the data is left out.
local function coap_messages(data)
  local position, count, first = 0, 0, nil
  while position < #data do
    local stop, code = coap_message(data, position)
    if stop == nil then
      if code == false then return 0, nil, false end
      return count, first, false
    end
    first = first or code
    if stop > #data then return count, first, false end
    position, count = stop, count + 1
  end
  return count, first, count > 0
end

--- Whether genuine CoAP is spoken: whole messages in each direction given, a CSM first. Where one end alone was heard,
-- its messages must end exactly with what there is: random bytes often parse that far.
local function is_coap(openings)
  local messages, spoken = 0, 0
  for _, opening in ipairs(openings) do
    if opening ~= "" then spoken = spoken + 1 end
  end
  for _, opening in ipairs(openings) do
    if opening ~= "" then
      if chain(opening) > 0 then return false end
      local count, first, whole = coap_messages(opening)
      if count == 0 or first ~= CSM or not (whole or spoken > 1 or #opening >= OPENING) then return false end
      messages = messages + count
    end
  end
  return messages >= COAP_MESSAGES
end

-- -- the kind of a conversation ----------------------------------------------------------------------------------

--- The hole that the first bytes of a direction lie in, nil when they are in the capture.
local function first_hole(conversation, sender)
  for _, hole in ipairs(conversation.holes) do
    if hole.sender == sender and hole.offset == 0 then return hole end
  end
  return nil
end

--- Whether the device spoke before the server did (or the server never did).
local function client_first(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.midway or server.midway or device.first_data == nil then return false end
  if server.sent == 0 then return true end
  local unseen = first_hole(conversation, "server")
  if unseen and unseen.reason == "not captured" then
    return device.first_data.packet < unseen.packet -- the device spoke before it acknowledged anything
  end
  return server.first_data == nil or device.first_data.time < server.first_data.time
end

--- Tells from sizes alone: the capture has no byte of what was sent (or it was sent in its absence).
local function kind_by_sizes(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if server.sent < NONCE_SIZE and device.sent < IDENTITY_SIZE then return "empty" end
  local asks = client_first(conversation) and device.first_size ~= SMALLEST_FRAME
  return (asks or server.first_size > NONCE_SIZE) and "other" or "spark"
end

--- Whether a conversation begun before the capture shows plenty of bytes and nothing of this protocol in them.
local function nothing_of_ours(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if not (device.midway and server.midway) then return false end
  for _, hole in ipairs(conversation.holes) do
    if hole.reason == "cut" then return false end
  end
  if device.frames > 0 or server.frames > 0 then return false end
  for _, parts in ipairs({ device.parts, server.parts }) do
    for _, part in ipairs(parts) do
      if part.received > 0 then return false end
    end
  end
  return max(device.captured, server.captured) > PLENTY
end

--- Whether both ends begin with more than a login has there, the client before the server: then frames behind that are
-- chance. A login may be seen in the wrong order, in pieces; but neither end has more to send unanswered.
local function is_out_of_turn(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.first_size <= IDENTITY_SIZE or server.first_size <= NONCE_SIZE then return false end
  if first_hole(conversation, "device") or first_hole(conversation, "server") then return false end
  return client_first(conversation)
end

--- Returns `spark`, `coap-tcp`, `tls`, `http`, `ssh`, `other` or `empty`, by the conversation's `sides`.
local function kind_of(conversation)
  local device, server = conversation.sides.device, conversation.sides.server
  if device.captured == 0 and server.captured == 0 then return kind_by_sizes(conversation) end
  local opening = server.opening
  local server_hole = first_hole(conversation, "server")
  if server.captured > 0 and not server.midway then
    local whole = not server_hole and server.first_size <= #opening
    local named = service(opening, whole and server.first_size or nil)
    if named then return named end
  end
  local asked = device.first_size ~= IDENTITY_SIZE and request_kind(device.opening)
  if asked then return asked end
  local openings = {}
  if not first_hole(conversation, "device") then openings[1] = device.opening end
  if not server_hole then openings[#openings + 1] = opening end
  local greeting_alone = device.captured == 0 and server.captured <= NONCE_SIZE
  if not greeting_alone and is_coap(openings) then return "coap-tcp" end
  if conversation.dead_frames[1] then return "spark" end
  if is_out_of_turn(conversation) then return "other" end
  if device.frames >= 2 or server.frames >= 2 then return "spark" end
  if client_first(conversation) then return (device.frames > 0 or server.frames > 0) and "spark" or "other" end
  return nothing_of_ours(conversation) and "other" or "spark"
end

-- -- whose the bytes are ----------------------------------------------------------------------------------------

--- Whether one end begins like CoAP over TCP: with a CSM, a short message without a token. "yes" when whole messages
-- end exactly with the data, "no" when it cannot be, "maybe" when it goes on behind the data.
local function coap_opening(data)
  if data == "" then return "maybe" end
  local first, code = byte(data, 1, 2)
  if first % 16 ~= 0 or EXTENDED[floor(first / 16)] then return "no" end
  if code == nil then return "maybe" end
  if code ~= CSM then return "no" end
  local count, _, exact = coap_messages(data)
  if exact then return "yes" end
  -- Without any whole message it is still a CSM; what cannot be a message behind it says no.
  return (count > 0 or #data < first / 16 + 2) and "maybe" or "no"
end

--- The verdict on an end that spoke first, or answered, by all it has said.
local OPENING_VERDICTS = { yes = "coap", maybe = "later", no = "spark" }

--- Whether frames follow one another in that direction for longer than chance has them do: a boundary found by mistake
-- gives two or three, and is lost again at the next length.
local function has_run_of_frames(turn)
  local frames = turn.frames
  if frames == nil or #frames.lost >= LOST_LISTED then return false end
  return frames.count >= BELIEVED * (#frames.lost + 1)
end

--- The verdict on a connection whose SYN was not captured. Little can be told from one segment: CoAP's are pieces of
-- messages, too. So only what cannot be CoAP is ours: frames that fill a segment, or the sizes of two handshake
-- messages in a row.
local function whose_midway(payload, from_server, conversation)
  local count, exact = chain(payload)
  if exact then return "spark" end
  local fills = count == 0 and select(3, coap_messages(payload))
  if conversation == nil then return coap_opening(payload) == "yes" and #payload < NONCE_SIZE and "coap" or "later" end
  local device, server = conversation.turns.device, conversation.turns.server
  if has_run_of_frames(device) or has_run_of_frames(server) then return "spark" end
  if not conversation.sides[from_server and "server" or "device"].first_data and #payload < NONCE_SIZE
    and coap_opening(payload) == "yes" then
    return "coap"
  end
  local before = conversation:part(from_server and "identity" or "nonce")
  if fills or before == nil or before.data == nil then return "later" end
  if not from_server then return #device.opening + #payload == IDENTITY_SIZE and "spark" or "later" end
  local total = #server.opening + #payload
  return (total == SESSION_SIZE or total == NONCE_SIZE + SESSION_SIZE) and "spark" or "later"
end

--- Says whose the bytes are that a segment brings, before it is taken: "spark", "coap" (not ours, for good) or "later"
-- (not decided: not ours so far).
-- @param conversation the one that the segment seems to belong to, nil when there is none yet
local function whose(payload, from_server, conversation)
  if conversation == nil or conversation.midway then return whose_midway(payload, from_server, conversation) end
  local sides, turns = conversation.sides, conversation.turns
  local device, server = turns.device.opening, turns.server.opening
  if from_server then server = server .. payload else device = device .. payload end
  conversation:refresh()
  local server_spoke = from_server or sides.server.sent > 0
  local device_first = sides.device.first_data and client_first(conversation) or not server_spoke
  if device_first then
    -- RFC 8323 has both ends begin with a CSM. Of ours, a device speaks first when it has no key, or when the greeting
    -- is missing from the capture.
    if select(2, chain(device)) then return "spark" end
    local verdict = OPENING_VERDICTS[coap_opening(device)]
    return (verdict == "spark" and #device ~= IDENTITY_SIZE) and "coap" or verdict
  end
  if server ~= "" and not first_hole(conversation, "server") then
    local verdict = OPENING_VERDICTS[coap_opening(server)]
    if #server ~= NONCE_SIZE or verdict == "spark" then return verdict end
    -- The size of a nonce, and one in 5,000 begins like this. Whole messages of just that size: the device will tell.
    if verdict == "later" then return "spark" end
  end
  return device == "" and "later" or OPENING_VERDICTS[coap_opening(device)]
end

spark.kind_of = kind_of
spark.request_kind = request_kind
spark.whose = whose
