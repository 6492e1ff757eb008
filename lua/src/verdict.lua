-- The verdict in words: `tshark -q -z spark`, the window under Tools, and the explanation of one finding.

local constants, wording = spark.constants, spark.wording
local format, rep, sub = string.format, string.rep, string.sub
local concat, sort = table.concat, table.sort

local FINDINGS = constants.findings.FINDINGS
local ASIDE_FOR_ALL = constants.report.layout.ASIDE_FOR_ALL
-- The window that Wireshark opens shows 75 columns of 21 lines; tshark's user has 80.
local WIDTH = 72
local LABEL = 13
-- Reasons, and causes with their remedies, that are told; the findings behind them are listed all.
local REASONS, CAUSES = 4, 3
-- Conversations that are named behind a finding.
local NAMED = 8

-- -- lines ----------------------------------------------------------------------------------------------------------

--- Columns that a text takes: the later bytes of a character have no width.
local function width_of(text)
  return select(2, string.gsub(text, "[^\128-\191]", ""))
end

local function padded(text, width)
  return text .. rep(" ", width - width_of(text))
end

--- Breaks a text into lines that hang behind `lead`, with which the first begins. What stands behind two blanks is a
-- command and stays in one piece, so that it can be copied.
local function paragraph(out, lead, text)
  local indent = rep(" ", width_of(lead))
  local line, empty = lead, true
  local function add(word)
    if not empty and width_of(line) + 1 + width_of(word) > WIDTH then
      out[#out + 1], line, empty = line, indent, true
    end
    line, empty = line .. (empty and "" or " ") .. word, false
  end
  local words, command = string.match(text, "^(.-%S)  (%S.*)$")
  for word in string.gmatch(words or text, "%S+") do add(word) end
  if command then add(command) end
  out[#out + 1] = line
end

--- A paragraph behind a label.
local function block(out, label, text)
  paragraph(out, padded(label, LABEL), text)
end

--- Steps with numbers, commands alone on their line, asides without a number.
local function numbered(out, label, steps)
  local count, step = 0, 0
  for _, text in ipairs(steps) do
    if not string.find(text, "^  ") and not string.find(text, "^\194\183 ") then count = count + 1 end
  end
  local deeper = count > 1 and "   " or ""
  for place, text in ipairs(steps) do
    local head = padded(place == 1 and label or "", LABEL)
    if string.find(text, "^  ") then
      -- In one piece, so that it can be copied.
      out[#out + 1] = head .. deeper .. text
    elseif string.find(text, "^\194\183 ") then
      local is_for_all = sub(text, 1, #ASIDE_FOR_ALL) == ASIDE_FOR_ALL
      paragraph(out, head .. (is_for_all and "" or deeper), sub(text, 4))
    elseif count > 1 then
      step = step + 1
      paragraph(out, head .. format("%d. ", step), text)
    else
      paragraph(out, head, text)
    end
  end
end

--- Lays rows of texts out in columns; numbers in `right` (set of places) stand on the right.
local function columns(out, rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    for place, text in ipairs(row) do widths[place] = math.max(widths[place] or 0, #text) end
  end
  out[#out + 1] = ""
  for _, row in ipairs(rows) do
    local cells = {}
    for place, text in ipairs(row) do
      local blanks = rep(" ", widths[place] - #text)
      cells[place] = right[place] and blanks .. text or text .. blanks
    end
    out[#out + 1] = (string.gsub(concat(cells, "  "), "%s+$", ""))
  end
end

-- -- what is said ---------------------------------------------------------------------------------------------------

--- The stories to tell of: those that fail, or all if none does; one for each cause.
local function causes(verdict)
  local chosen, known, failing = {}, {}, false
  for _, story in ipairs(verdict.stories) do failing = failing or story.mark == "fails" or story.mark == "warns" end
  for _, story in ipairs(verdict.stories) do
    local cause = story.state .. (story.lead and story.lead.finding.code or "")
    if not known[cause] and (not failing or story.mark == "fails" or story.mark == "warns") then
      known[cause] = true
      chosen[#chosen + 1] = story
    end
  end
  return chosen
end

local function say_how_sure_and_what_to_do(out, verdict)
  if verdict.sure == "" and #verdict.stories[1].steps == 0 then return end
  out[#out + 1] = ""
  if verdict.sure ~= "" then block(out, "How sure", verdict.sure) end
  local told, several = 0, #verdict.stories > 1
  for _, story in ipairs(causes(verdict)) do
    if #story.steps > 0 and told < CAUSES then
      told = told + 1
      local label = told == 1 and "Do this" or ""
      if several then
        block(out, label, format("For %s:", story.address))
        label = ""
      end
      numbered(out, label, story.steps)
    end
  end
end

--- The reasons for the first story, each once.
local function say_why(out, verdict)
  local known, told = {}, 0
  for _, entry in ipairs(spark.evidence_of(verdict.stories[1])) do
    for _, evidence in ipairs(entry.finding.evidence) do
      if not known[evidence.text] and told < REASONS then
        if told == 0 then out[#out + 1] = "" end
        known[evidence.text], told = true, told + 1
        block(out, told == 1 and "Why" or "", evidence.text)
      end
    end
  end
end

local function endpoint(of)
  return format(string.find(of.ip, ":", 1, true) and "[%s]:%d" or "%s:%d", of.ip, of.port)
end

local function say_conversations(out, analysis, codes)
  local seen = { { "#", "device", "reached", "frames", "findings" } }
  local ends = { { "#", "id", "server", "kind", "opened" } }
  for place, c in ipairs(analysis.trace.conversations) do
    local name = format("%d", c.number)
    seen[place + 1] = {
      name,
      endpoint(c.device),
      c.reached,
      format("%d", c.sides.device.frames + c.sides.server.frames),
      #codes[c] > 0 and concat(codes[c], " ") or "-",
    }
    ends[place + 1] = {
      name,
      c.device.id or "-",
      endpoint(c.server),
      c.kind,
      c.secrets and format("%d", c.secrets.opened) or "-",
    }
  end
  columns(out, seen, { true, [4] = true })
  columns(out, ends, { true, [5] = true })
end

--- Every finding by its name, with the conversations it is of.
local function say_findings(out, verdict)
  local by_code, order = {}, {}
  for _, story in ipairs(verdict.stories) do
    for _, entry in ipairs(story.findings) do
      local code = entry.finding.code
      if not by_code[code] then
        by_code[code] = { severity = entry.finding.severity, numbers = {} }
        order[#order + 1] = code
      end
      for _, c in ipairs(entry.conversations) do table.insert(by_code[code].numbers, c.number) end
    end
  end
  if #order > 0 then out[#out + 1] = "" end
  for _, code in ipairs(order) do
    local own, names = by_code[code], {}
    sort(own.numbers)
    for place = 1, math.min(#own.numbers, NAMED) do names[place] = format("%d", own.numbers[place]) end
    local more = #own.numbers > NAMED and format(" and %d more", #own.numbers - NAMED) or ""
    block(out, code, format("%s (%s). Conversation%s %s%s.", FINDINGS[code].title, own.severity,
      #own.numbers == 1 and "" or "s", concat(names, ", "), more))
  end
end

local function count(set)
  local number = 0
  for _ in pairs(set) do number = number + 1 end
  return number
end

local function has_keys(ring) return ring ~= nil and not ring.empty end

local function say_keys(out, ring)
  out[#out + 1] = ""
  if has_keys(ring) then
    local parts = {}
    for _, kind in ipairs({
      { #ring.device_private, "private device key" },
      { #ring.server_keys, "server key" },
      { count(ring.logged) + #ring.loose_session_keys, "session key" },
    }) do
      if kind[1] > 0 then parts[#parts + 1] = wording.plural(kind[1], kind[2]) end
    end
    block(out, "Keys", wording.listing(parts) .. ".")
  else
    block(out, "Keys", "None is given. A key opens the messages and makes the verdict surer: Tools > Spark > Keys, or"
      .. " Edit > Preferences > Protocols > SPARK. Paste the path of the device's private key, of a folder, or of a"
      .. " key log.")
  end
  for _, note in ipairs(ring and ring.notes or {}) do block(out, "", note) end
end

--- The whole verdict as text.
local function report()
  local analysis, ring = spark.current()
  local out = {}
  if not analysis or #analysis.trace.conversations == 0 then
    out[1] = constants.report.verdict.NO_TRAFFIC
    paragraph(out, "", format("No TCP packet goes to or comes from port %s. Another port: Edit > Preferences >"
      .. " Protocols > SPARK.", tostring(spark.proto.prefs.ports)))
    return concat(out, "\n") .. "\n"
  end
  local verdict, codes = spark.verdict_of(analysis, has_keys(ring))
  out[1] = verdict.state
  paragraph(out, "", verdict.sentence)
  say_how_sure_and_what_to_do(out, verdict)
  say_why(out, verdict)
  say_conversations(out, analysis, codes)
  say_findings(out, verdict)
  say_keys(out, ring)
  local lead = verdict.stories[1].lead
  local page = lead and lead.finding.code or "capture"
  block(out, "More", "sparkshark analyze CAPTURE; sparkshark explain " .. page)
  return concat(out, "\n") .. "\n"
end

-- -- windows --------------------------------------------------------------------------------------------------------

local function show(title, text)
  local window = TextWindow.new(title)
  window:set(text)
  window:set_editable(false)
  return window
end

local function show_verdict()
  local window = show("Spark: verdict", report())
  window:add_button("Refresh", function() window:set(report()) end)
  window:add_button("Filter findings", function()
    set_filter("spark.finding")
    apply_filter()
  end)
  window:add_button("Copy", function() copy_to_clipboard(window:get_text()) end)
end

local PREFERENCES = { "device_key", "server_key", "keylog" }

local function ask_for_keys()
  new_dialog("Spark: keys", function(...)
    local changed = false
    for place, value in ipairs({ ... }) do
      changed = set_preference("spark." .. PREFERENCES[place], value) or changed
    end
    if changed then
      apply_preferences()
      redissect_packets()
    end
  end, { name = "Device key (file or folder)", value = spark.proto.prefs.device_key },
    { name = "Server key (file or folder)", value = spark.proto.prefs.server_key },
    { name = "Key log (file)", value = spark.proto.prefs.keylog })
end

--- The page of a finding, as `sparkshark explain` has it.
local function explain(code)
  local spec, out, steps = FINDINGS[code], {}, {}
  for place, text in ipairs(spec.fix) do
    steps[place] = wording.fill(text, constants.report.explained.ANY_SERVER)
  end
  paragraph(out, code .. "  ", spec.title)
  out[#out + 1] = ""
  paragraph(out, "", spec.means)
  out[#out + 1] = ""
  block(out, "In packets", spec.looks)
  if spec.led ~= "" then block(out, "LED", spec.led) end
  numbered(out, "Do this", steps)
  for place, other in ipairs(spec.not_it) do
    block(out, place == 1 and "Not this" or "", other[1] .. ": " .. other[2])
  end
  if spec.settle ~= "" then block(out, "Settled by", spec.settle) end
  return concat(out, "\n") .. "\n"
end

local function explain_packet(...)
  local pages = {}
  for _, info in ipairs({ ... }) do
    if info.name == "spark.finding" and FINDINGS[info.value] then pages[#pages + 1] = explain(info.value) end
  end
  if #pages == 0 then
    pages[1] = "No finding is told of in this packet.\nTools > Spark > Verdict has those of the whole capture.\n"
  end
  show("Spark: explanation", concat(pages, "\n"))
end

-- -- statistics -----------------------------------------------------------------------------------------------------

local function statistics()
  local tap = Listener.new("frame")
  local window, is_closed
  function tap.packet() end
  function tap.reset() end
  function tap.draw()
    if is_closed then return end
    if gui_enabled() then
      if not window then
        window = show("Spark: verdict", "")
        -- A closed window cannot be written to.
        window:set_atclose(function() is_closed = true end)
      end
      window:set(report())
    else
      io.stdout:write(report())
    end
  end
  if gui_enabled() then retap_packets() end
end

register_stat_cmd_arg("spark", statistics)
if gui_enabled() then
  register_menu("Spark/Verdict", show_verdict, MENU_TOOLS_UNSORTED)
  register_menu("Spark/Keys", ask_for_keys, MENU_TOOLS_UNSORTED)
  if register_packet_menu then register_packet_menu("Spark/Explain this packet", explain_packet, "spark") end
end

spark.report, spark.explain = report, explain
