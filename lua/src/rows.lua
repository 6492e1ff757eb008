-- What a packet shows: its columns and its tree. Everything is drawn from a `row`, made when the packet was first
-- seen, so that every pass and every jump shows the same.

local constants, field, proto = spark.constants, spark.field, spark.proto
local value_fields, things = spark.value_fields, spark.things
local value_text = spark.value_text
local char, format, sub = string.char, string.format, string.sub
local abs, floor, min = math.abs, math.floor, math.min
local concat = table.concat

local SEALED_KEY_SIZE = constants.catalogue.SEALED_KEY_SIZE
local LENGTH_PREFIX = constants.catalogue.LENGTH_PREFIX
local BAD = spark.rules.BAD

-- More texts than these are counted, not shown: a packet of an update can hold dozens of messages.
local TEXTS_IN_COLUMN = 3
-- Messages that are drawn in one packet's tree. The largest segment holds fewer than this many of the smallest.
local MESSAGES_IN_TREE = 4096
-- Bytes of notes that are told in one expert info, which Wireshark cuts: the verdict has them all.
local NOTES_SIZE = 200

local STEPS = {
  nonce = "Nonce (handshake 1/5, random bytes)",
  identity = "Identity (handshake 2/5, who I am, locked for the server)",
  session = "Session offer (handshake 3/5, locked for the device)",
}
local HELLOS = { device = "Hello (handshake 4/5)", server = "Hello (handshake 5/5)" }

local coap = Dissector.get("coap")

-- -- what a row is --------------------------------------------------------------------------------------------------
-- A row is kept for each packet that shows something, so it is small: `conversation`, `sender`, `time_in_step`, its
-- items as the array part; `waiting`, `findings` and `notes` where there are any. An item is one of
--   {part = nonce|identity|session, text, size, identity, offer}
--   {index, length, text, dead, hello, obstacle, name, plaintext, missing}, and by number what a message says besides
--   {text} alone
-- and the first two have `at`, the place of their bytes in the packet, or `bytes` when they came in several.

-- By number, because names cost more than twice the memory, and half of it is names beyond eight.
local VALUES, ORDER, ANSWERS, ANSWER_TIME = 1, 2, 3, 4

local function part_text(part, offer)
  local text = STEPS[part.kind]
  if part.missing and part.missing > 0 then
    return format("%s, %d of %d bytes missing in the capture", text, part.missing, part.size)
  end
  if part.kind ~= "session" or not offer or offer.opened == nil then return text end
  return text .. (offer.opened and ", opened" or ", does not open with the device keys given")
end

--- Puts into an item what a key showed of its frame, at once or when the key was found later.
local function opened_item(item, opened, message)
  local step = HELLOS[item.hello]
  if item.dead then
    item.text = "Dead-key frame: " .. item.dead
  elseif message then
    local text = spark.info(message)
    item.text = step and step .. sub(text, #(message.name or "") + 1) or text
    item.name, item.plaintext = message.name or "?", message.plaintext
    item[VALUES], item[ORDER] = message.values, message.value_order
    item[ANSWERS], item[ANSWER_TIME] = message.answers_packet, message.answer_time
    if message.missing > 0 then item.missing = message.missing end
  elseif opened then
    item.obstacle = opened.obstacle
    item.text = format("Message of %d bytes, does not open (%s)", item.length, opened.obstacle)
  else
    item.text = step and step .. ", encrypted" or format("Encrypted message (%d bytes)", item.length)
  end
  return item
end

--- Makes an item of what the engine completed.
-- @param at where its bytes stand in the packet, nil when they came in several
local function item_of(made, secrets, hello, at)
  if made.what == "part" then
    local part = made.part
    local item = { part = part.kind, sender = part.sender, size = part.size, at = at }
    if not at then item.bytes = part.data end
    if secrets and part.kind == "identity" then item.identity = secrets.identity end
    if secrets and part.kind == "session" then item.offer = secrets.offer end
    item.text = part_text(part, item.offer)
    return item
  elseif made.what == "frame" then
    local frame, item = made.frame
    if made.message then
      -- Room for all that a message says: a table that grows is built anew.
      item = {
        nil, nil, nil, nil, index = frame.index, sender = frame.sender, length = frame.length, at = at, text = nil,
        name = nil, plaintext = nil,
      }
    else
      item = { index = frame.index, sender = frame.sender, length = frame.length, at = at, text = nil }
      if made.dead then item.dead = made.dead end
    end
    if hello then item.hello = hello end
    if not at and frame.ciphertext then
      item.bytes = char(floor(frame.length / 256), frame.length % 256) .. frame.ciphertext
    end
    return opened_item(item, made.opened, made.message)
  elseif made.what == "hole" then
    return { sender = made.hole.sender, text = format("%d bytes missing (%s)", made.hole.length, made.hole.reason) }
  end
  return { text = format("No message can begin here: length %d", made.lost.field) }
end

--- The text of a row's Info column.
local function info(row)
  local count = #row
  if count == 1 and not row.waiting and not row.findings then return row[1].text end
  local texts = {}
  for place = 1, min(count, TEXTS_IN_COLUMN) do texts[place] = row[place].text end
  if count > TEXTS_IN_COLUMN then texts[#texts + 1] = format("+%d more", count - TEXTS_IN_COLUMN) end
  texts[#texts + 1] = row.waiting
  for _, finding in ipairs(row.findings or {}) do
    if BAD[finding.severity] then texts[#texts + 1] = finding.code end
  end
  return concat(texts, " | ")
end

-- -- the tree -------------------------------------------------------------------------------------------------------
-- Most packets are drawn for a list or a filter, and nobody sees their tree: then only what can be filtered on is made.

local visible = false
-- The method of tree items that adds one: looking it up in an item costs as much as calling it.
local put

--- Adds what is worked out and not on the wire.
local function add(tree, of, value)
  local made = put(tree, of, value)
  if visible then made:set_generated() end
end

--- Seconds as Wireshark shows them without an exponent, to the microsecond: what is beyond comes from counting in
-- binary.
local function span(seconds)
  local microseconds = floor(abs(seconds) * 1e6 + 0.5)
  local whole = floor(microseconds / 1e6)
  local rest = floor(microseconds - whole * 1e6) * 1000
  if seconds < 0 then return NSTime.new(-whole, -rest) end
  return NSTime.new(whole, rest)
end

--- The bytes of an item: where they stand in the packet, or put together from several packets in a tab of their own.
local function bytes_of(item, size, tvb, title)
  if item.at and item.at + size <= tvb:len() then return tvb(item.at, size) end
  return item.bytes and ByteArray.new(item.bytes, true):tvb(title)() or nil
end

--- The same for an item whose tree somebody sees, or whose bytes are a field; nil for the others.
local function range_for(item, tvb)
  if item.part then return bytes_of(item, item.size, tvb, "Spark " .. item.part) end
  if visible and item.index then return bytes_of(item, item.length + LENGTH_PREFIX, tvb, "Spark message") end
  return nil
end

local function draw_part(item, tree, range)
  add(tree, field.stage, item.part)
  if range then
    local of = put(tree, field[item.part], range)
    if item.part == "session" then
      put(of, field.sealed_key, range(0, SEALED_KEY_SIZE))
      put(of, field.signature_bytes, range(SEALED_KEY_SIZE))
    end
  end
  local identity, offer = item.identity, item.offer
  if identity then
    if identity.nonce_matches ~= nil then add(tree, field.nonce_matches, identity.nonce_matches) end
    add(tree, field.key_source, identity.opened_by.name)
  elseif offer then
    if offer.opened then
      add(tree, field.key_source, offer.opened_by.name)
    elseif offer.opened == false then
      tree:add_proto_expert_info(spark.undecrypted_expert, "None of the device keys given opens this reply.")
    end
    add(tree, field.signature, offer.signature)
  end
end

local function draw_values(item, tree)
  local of = value_fields[things[item.name]]
  for _, name in ipairs(item[ORDER]) do
    local value = item[VALUES][name]
    if value ~= nil then
      local known = of and of[name]
      if known and known.is_text then
        put(tree, known.field, value_text(value))
      elseif known and known.holds(value) then
        put(tree, known.field, value)
      else
        put(tree, field.value, format("%s: %s", name, value_text(value)))
      end
      if name == "value" and type(value) == "number" and of and of.number then add(tree, of.number.field, value) end
    end
  end
end

local function draw_message(item, tree)
  put(tree, field.message, item.name)
  if item.missing then add(tree, field.missing, item.missing) end
  draw_values(item, tree)
  if item[ANSWERS] then
    add(tree, field.answers, item[ANSWERS])
    add(tree, field.answer_time, span(item[ANSWER_TIME]))
  end
  if item.answered then add(tree, field.answered, item.answered) end
end

--- Puts the plaintext into a tab of its own, and lets Wireshark's own dissector read it: that one shows the options,
-- and makes the coap.* filters work. It is a field of ours only where somebody looks.
local function draw_plaintext(item, tree, pinfo, is_field)
  if item.plaintext == "" then return end
  local plain = ByteArray.new(item.plaintext, true):tvb("Decrypted CoAP")
  if is_field then put(tree, field.plaintext, plain()) end
  if not item.missing then coap:call(plain, pinfo, tree) end
end

local function draw_frame(item, tree, range, pinfo, key_source)
  add(tree, field.stage, item.hello and not item.dead and "hello" or "message")
  -- What it says comes first; how it was wrapped is for those who look further.
  if item.name then draw_message(item, tree) end
  if range then
    put(tree, field.length, range(0, LENGTH_PREFIX))
    put(tree, field.ciphertext, range(LENGTH_PREFIX))
  else
    put(tree, field.length, item.length)
  end
  add(tree, field.index, item.index)
  if item.name then
    if key_source then add(tree, field.key_source, key_source) end
    draw_plaintext(item, tree, pinfo, true)
  elseif item.obstacle then
    tree:add_proto_expert_info(spark.undecrypted_expert, item.text)
  end
end

--- Draws an item into `tree`, which is its own.
local function draw_item(item, tree, range, pinfo, key_source)
  if item.part then
    draw_part(item, tree, range)
  elseif item.index then
    draw_frame(item, tree, range, pinfo, key_source)
  else
    add(tree, field.note, item.text)
  end
end

--- A finding as one paragraph: what it says, how sure that is, and the first reason.
local function finding_text(finding)
  local sure = constants.findings.CONFIDENCE_WORDS[finding.confidence]
  local text = format("%s %s %s.", finding.code, finding.summary, sure)
  local first = finding.evidence and finding.evidence[1]
  return first and text .. " " .. first.text or text
end

local function draw_finding(finding, tree)
  local branch = put(tree, field.finding, finding.code):set_generated()
  if visible then branch:append_text(", " .. constants.findings.FINDINGS[finding.code].title) end
  add(branch, field.severity, finding.severity)
  add(branch, field.confidence, finding.confidence)
  branch:add_proto_expert_info(spark.experts[finding.code .. finding.severity], finding_text(finding))
end

--- All that is wrong with the keys as one text: the first problem, and others while there is room.
local function notes_text(notes)
  local text, place = notes[1], 2
  while notes[place] and #text + #notes[place] < NOTES_SIZE do
    text, place = text .. " | " .. notes[place], place + 1
  end
  local left = #notes - place + 1
  return left > 0 and format("%s | +%d more", text, left) or text
end

local TITLE = "Spark Core cloud protocol"

local function branch_of(parent, range, text)
  if not visible then return put(parent, proto) end
  if range then return put(parent, proto, range, text) end
  return put(parent, proto, text)
end

--- Writes the columns: last, because the CoAP dissector writes its own.
local function write_columns(pinfo, text)
  local columns = pinfo.cols
  columns.protocol = "Spark"
  columns.info = text
end

--- Whether a row is one message whose tree nobody sees and whose fields nobody asks for: most are, when a capture is
-- read. What else a row can hold has to be said all the same: expert infos, bytes put together in a tab.
local function is_unseen(row, root)
  local item = row[1]
  if item == nil or row[2] or not item.index or item.obstacle or row.findings or row.notes then return false end
  return not root:referenced(spark.own_dissector())
end

--- Draws a row into the packet's tree and columns.
local function draw(row, tvb, pinfo, root)
  if is_unseen(row, root) then
    local item = row[1]
    root:add(proto) -- statistics count protocols
    -- Wireshark's own dissector shall not miss a message: it finds out which answers which.
    if item.plaintext then draw_plaintext(item, root, pinfo, false) end
    return write_columns(pinfo, row.waiting and info(row) or item.text)
  end
  visible, put = root.visible, put or root.add
  local conversation, count, text = row.conversation, #row, info(row)
  local range = count == 1 and range_for(row[1], tvb) or nil
  local tree = branch_of(root, range, text ~= "" and TITLE .. ", " .. text or TITLE)
  add(tree, field.conversation, conversation.number)
  -- An acknowledgement can show that bytes of the other end are missing, and complete what lies behind them.
  add(tree, field.direction, count == 1 and row[1].sender or row.sender)
  local device_id, secrets = conversation.device.id, conversation.secrets
  -- The session offer says what opened it. A key that came from elsewhere is named with each message.
  local key_source = secrets and not (secrets.offer and secrets.offer.opened) and secrets.key_source or nil
  if device_id then add(tree, field.device_id, device_id) end
  if row.time_in_step then add(tree, field.time_in_step, span(row.time_in_step)) end
  if count == 1 then
    draw_item(row[1], tree, range, pinfo, key_source)
  else
    for place = 1, min(count, MESSAGES_IN_TREE) do
      local item = row[place]
      range = range_for(item, tvb)
      local branch = branch_of(tree, range, item.text)
      if item.sender and item.sender ~= row.sender then add(branch, field.direction, item.sender) end
      draw_item(item, branch, range, pinfo, key_source)
    end
  end
  if row.waiting then add(tree, field.note, row.waiting) end
  if row.findings then
    for _, finding in ipairs(row.findings) do draw_finding(finding, tree) end
  end
  if row.notes then tree:add_proto_expert_info(spark.note_expert, notes_text(row.notes)) end
  if count > 0 or row.waiting then
    write_columns(pinfo, text)
  elseif text ~= "" then
    pinfo.cols.info:append("  [" .. text .. "]")
  end
end

spark.draw_row, spark.finding_text, spark.item_of, spark.opened_item = draw, finding_text, item_of, opened_item
