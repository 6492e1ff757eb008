-- One file's bytes -> the RSA keys in it, told from the content, and how the firmware would read them (PROTOCOL 8).
--
-- Read top to bottom: what the firmware makes of a private key; keys where devices keep them (slots, flash chips); and
-- whole files: what is no key at all, text with a key in it, and DER, alone or with whatever a dump has around it.

local constants = spark.constants
local der = spark.der

local fill = spark.wording.fill
local floor, byte, sub, find = math.floor, string.byte, string.sub, string.find
local concat = table.concat

-- The firmware's own reader (PROTOCOL 8.4) -----------------------------------------------------------------------

local DEVICE_BITS = constants.keys.model.DEVICE_BITS
local EXPONENT = constants.keys.model.EXPONENT
local PRIVATE_SLOT = constants.keys.firmware.PRIVATE_SLOT
local NUMBER_NAMES = constants.keys.firmware.NUMBER_NAMES
local NUMBER_SIZES = constants.keys.firmware.NUMBER_SIZES
local FIRST_STEP = constants.keys.firmware.FIRST_STEP
local STEPS = constants.keys.firmware.STEPS

local FILLER = string.rep("\255", PRIVATE_SLOT + 16)

--- The seven numbers as the firmware takes them out of its slot. It looks at the byte where an INTEGER's length
--- should be, takes an odd one to mean a leading zero, copies 128 or 64 bytes and jumps on by a constant. What lies
--- behind the file is erased flash, FF.
local function walk_private_slot(slot)
  local flash, numbers, at = slot .. FILLER, {}, FIRST_STEP
  for index, size in ipairs(NUMBER_SIZES) do
    at = at + (byte(flash, at + 1) % 2 == 1 and 2 or 1)
    numbers[index] = der.trimmed(sub(flash, at + 1, at + size))
    at = at + STEPS[index]
  end
  return numbers
end

--- Compare the walk over a device's PKCS#1 key, up to 612 bytes of `slot`, with what a real ASN.1 reader finds (all
--- eight numbers, `private`): {ok, differences}, the differences in words.
local function reads_private(slot, private)
  local bits = der.bit_length(private.n)
  if bits ~= DEVICE_BITS then
    local wrong = fill(constants.keys.firmware.WRONG_BITS, { bits = bits, wanted = DEVICE_BITS })
    return { ok = false, differences = { wrong } }
  end
  local differences = {}
  if private.e ~= der.from_integer(EXPONENT) then
    local e = 0.0
    for at = 1, #private.e do
      e = e * 256 + byte(private.e, at)
    end
    local values = { e = ("%.0f"):format(e), wanted = EXPONENT }
    differences[1] = fill(constants.keys.firmware.WRONG_EXPONENT, values)
  end
  local truth = { private.n, private.d, private.p, private.q, private.dp, private.dq, private.qinv }
  local members = der.children(slot, der.read_element(slot, 0))
  for index, size in ipairs(NUMBER_SIZES) do
    -- Version and e are members that the walk does not take.
    local member = members[index == 1 and 2 or index + 2]
    local width = member and (member.stop - member.start) or size
    if width ~= size and width ~= size + 1 then
      local values = { name = NUMBER_NAMES[index], short = #truth[index], size = size }
      differences[#differences + 1] = fill(constants.keys.firmware.SHORT_NUMBER, values)
    end
  end
  local walked, wrong = walk_private_slot(slot), {}
  for index, number in ipairs(truth) do
    if walked[index] ~= number then
      wrong[#wrong + 1] = NUMBER_NAMES[index]
    end
  end
  if #wrong > 0 and #differences == 0 then
    differences[1] = fill(constants.keys.firmware.WRONG_PLACES, { names = concat(wrong, ", ") })
  end
  if not spark.rsa.private_key(private):consistent() then
    differences[#differences + 1] = constants.keys.firmware.CONTRADICTION
  end
  return { ok = #differences == 0, differences = differences }
end

-- Keys where devices keep them (PROTOCOL 8.2) --------------------------------------------------------------------

local ROLES = constants.keys.model.ROLES
local RSA_ID = constants.keys.der.RSA_ID
local FLASH_SIZE = constants.keys.dumps.FLASH_SIZE
local DCT_SIZE = constants.keys.dumps.DCT_SIZE
local SERVER_SLOT = constants.keys.dumps.SERVER_SLOT
local BLANK_PROBE = constants.keys.dumps.BLANK_PROBE
local DCT_ELLIPTIC_PLACES = constants.keys.dumps.DCT_ELLIPTIC_PLACES
local MOST_KEYS = constants.keys.dumps.MOST_KEYS
local DEVICE_ID_DIGITS = 2 * constants.catalogue.DEVICE_ID_SIZE

--- A table of places by address as an array in a fixed order: the device's slot first, as its text sorts first.
local function in_order(places)
  local ordered = {}
  for at, what in pairs(places) do
    ordered[#ordered + 1] = { at = at, what = what }
  end
  table.sort(ordered, function(a, b)
    return a.what < b.what
  end)
  return ordered
end

local CORE_PLACES = in_order(constants.keys.dumps.CORE_PLACES)
local DCT_PLACES = in_order(constants.keys.dumps.DCT_PLACES)
local LAST_CORE_PLACE = math.max(CORE_PLACES[1].at, CORE_PLACES[2].at)

--- The device ids that a file's name carries.
local function device_ids_in(name)
  local ids = {}
  for digits in name:match("[^/\\]*$"):gmatch("%x+") do
    if #digits == DEVICE_ID_DIGITS then
      ids[#ids + 1] = digits:lower()
    end
  end
  return ids
end

--- One key: the structure `found` in `data`, in the file `name`.
local function key_of(data, name, found)
  local bits = der.bit_length(found.n)
  return {
    name = name,
    n = found.n,
    e = found.e,
    private = found.private,
    bits = bits,
    role = ROLES[bits] or "other",
    device_ids = device_ids_in(name),
    encoding = found.what,
    pem = false,
    slot = found.private and sub(data, found.pkcs1_at + 1, found.pkcs1_at + PRIVATE_SLOT) or nil,
  }
end

-- INTEGER 0 and INTEGER of 128 or more bytes: what stands behind the four bytes of a PKCS#1 key's own header.
local PKCS1_INSIDE = "\2\1\0\2\129"
local ALGORITHM = "\48\13\6\9" .. RSA_ID

--- Where a PKCS#1 private key begins, by the place where its inside does; nil when the rest is not as it must be.
local function pkcs1_head(data, inside)
  local width = byte(data, inside + #PKCS1_INSIDE)
  if inside > 4 and sub(data, inside - 4, inside - 3) == "\48\130" and (width == 0x80 or width == 0x81) then
    return inside - 4
  end
  return nil
end

--- Where a PKCS#8 or SPKI key begins, by the place of its algorithm; nil when what stands before it is neither.
local function algorithm_head(data, algorithm)
  if algorithm > 3 and sub(data, algorithm - 3, algorithm - 1) == "\48\129\159" then
    return algorithm - 3
  elseif algorithm > 4 and sub(data, algorithm - 4, algorithm - 1) == "\48\130\1\34" then
    return algorithm - 4
  elseif
    algorithm > 7
    and sub(data, algorithm - 7, algorithm - 6) == "\48\130"
    and sub(data, algorithm - 3, algorithm - 1) == "\2\1\0"
  then
    return algorithm - 7
  end
  return nil
end

--- Offsets at which key structures seem to begin, the first `MOST_KEYS` of them in order. Plain searches for what is
--- fixed in them: a pattern would be tried at each byte of a flash chip.
local function heads(data)
  local found = {}
  for needle, head in pairs({ [PKCS1_INSIDE] = pkcs1_head, [ALGORITHM] = algorithm_head }) do
    local count, at = 0, find(data, needle, 1, true)
    while at and count < MOST_KEYS do
      local start = head(data, at)
      if start then
        count, found[#found + 1] = count + 1, start - 1
      end
      at = find(data, needle, at + 1, true)
    end
  end
  table.sort(found)
  for index = #found, MOST_KEYS + 1, -1 do
    found[index] = nil
  end
  return found
end

--- What a dump of this size is, the flash address of its first byte (0 when not known), and the places to look at.
local function layout(size)
  if size == DCT_SIZE then
    return "dct-dump", 0, DCT_PLACES
  end
  local start = FLASH_SIZE - size
  if start >= 0 and start <= LAST_CORE_PLACE then
    -- Left without a length, dfu-util reads from the given address to the end of the flash.
    return "flash-dump", start, CORE_PLACES
  end
  return size > SERVER_SLOT and "flash-dump" or "slot-dump", 0, {}
end

local function overlaps(taken, start)
  for _, range in ipairs(taken) do
    if range.from <= start and start < range.to then
      return true
    end
  end
  return false
end

--- Find the keys in a dump, at the places known for its size first. Return keys, a remark (nil: none) and the dump's
--- kind; nil when there is neither a key nor an erased slot.
local function carved(data, name)
  local kind, base, places = layout(#data)
  local starts, remarks = {}, {}
  for _, place in ipairs(places) do
    local at = place.at - base
    if at >= 0 then
      starts[#starts + 1] = at
      if not find(sub(data, at + 1, at + BLANK_PROBE), "[^\255]") then
        remarks[#remarks + 1] = fill(constants.keys.dumps.ERASED_SLOT, { what = place.what })
      end
    end
  end
  for _, at in ipairs(heads(data)) do
    starts[#starts + 1] = at
  end
  local found, taken = {}, {}
  for _, start in ipairs(starts) do
    -- A PKCS#1 structure also stands inside each PKCS#8 one, and known places are found twice.
    local structure = not overlaps(taken, start) and der.read_structure(data, start)
    if structure and structure.n then
      found[#found + 1] = key_of(data, name, structure)
      taken[#taken + 1] = { from = start, to = start + structure.length }
    end
  end
  for _, at in ipairs(kind == "dct-dump" and DCT_ELLIPTIC_PLACES or {}) do
    local structure = der.read_structure(data, at)
    if structure and structure.what == "elliptic-curve" then
      remarks[#remarks + 1] = fill(constants.keys.dumps.ELLIPTIC_AT, { at = at })
    end
  end
  if #found == 0 and #remarks == 0 then
    return nil
  end
  return found, remarks[1] and concat(remarks, "; "), kind
end

-- DER ------------------------------------------------------------------------------------------------------------

local SMALLEST_DUMP = constants.keys.inspect.SMALLEST_DUMP
local TEXT_PROBE = constants.keys.inspect.TEXT_PROBE
local REMARKS = constants.keys.inspect.REMARKS
local NOT_TEXT = "[^\t\n\r\32-\126]"

--- A file with one key at its front: the key alone, a slot read back, or a server image.
local function single(data, name, structure)
  local found = structure.n and { key_of(data, name, structure) } or {}
  if structure.truncated then
    return found, fill(REMARKS.cut, { size = #data, length = structure.length }), "truncated"
  elseif #found == 0 then
    return found, REMARKS.certificate, "certificate"
  end
  return found, nil, "key"
end

--- Keys, remark and kind of bytes that are not text.
local function from_der(data, name)
  local structure = der.read_structure(data)
  local what = structure and structure.what
  if what == "elliptic-curve" or what == "encrypted" then
    return {}, REMARKS[what], what
  end
  if not structure or (#data >= SMALLEST_DUMP and #data > structure.length) then
    local found, remark, kind = carved(data, name)
    if found then
      return found, remark, kind
    end
  end
  if structure then
    return single(data, name, structure)
  end
  local kind = find(sub(data, 1, TEXT_PROBE), NOT_TEXT) and "unknown" or "text"
  return {}, REMARKS[kind], kind
end

-- Text -----------------------------------------------------------------------------------------------------------

local PEM_START = constants.keys.inspect.PEM_START
local MOST_PEM_BLOCKS = constants.keys.inspect.MOST_PEM_BLOCKS
local LONGEST_PEM_LABEL = constants.keys.inspect.LONGEST_PEM_LABEL
local LONGEST_PEM_BLOCK = constants.keys.inspect.LONGEST_PEM_BLOCK
local UTF16_PROBE = constants.keys.inspect.UTF16_PROBE
local UTF16_MARKS = constants.keys.inspect.UTF16_MARKS
local UTF8_MARK = constants.keys.inspect.UTF8_MARK
local ENCRYPTED_LABEL = constants.keys.inspect.ENCRYPTED_LABEL
local ENCRYPTED_HEADER = constants.keys.inspect.ENCRYPTED_HEADER
local PARAMETERS_LABEL = constants.keys.inspect.PARAMETERS_LABEL

--- UTF-16 in one byte order: its mark, its bytes for ASCII text, and ASCII characters by their two bytes; any other
--- two bytes read as a question mark.
local function encoding(mark, widen)
  local narrow = setmetatable({}, {
    __index = function()
      return "?"
    end,
  })
  for code = 0, 127 do
    local character = string.char(code)
    narrow[widen(character)] = character
  end
  return { mark = mark, pem_start = PEM_START:gsub(".", widen), narrow = narrow }
end

local WIDE = {
  encoding(UTF16_MARKS["utf-16-le"], function(character)
    return character .. "\0"
  end),
  encoding(UTF16_MARKS["utf-16-be"], function(character)
    return "\0" .. character
  end),
}

--- The bytes with the marks that editors and PowerShell's `>` leave taken away.
local function as_text(data)
  for _, wide in ipairs(WIDE) do
    local size = #wide.mark
    if sub(data, 1, size) == wide.mark and find(sub(data, 1, UTF16_PROBE), wide.pem_start, 1, true) then
      return (sub(data, size + 1):gsub("..?", wide.narrow))
    end
  end
  return sub(data, 1, #UTF8_MARK) == UTF8_MARK and sub(data, #UTF8_MARK + 1) or data
end

local SIXTETS = {}
for value = 0, 63 do
  SIXTETS[byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", value + 1)] = value
end

--- Cut a run of base64 characters at its padding and take stray `=` out; nil when it ends in the middle of a byte.
local function unpadded(digits)
  local pieces, count, at = {}, 0, 1
  while true do
    local first, last = find(digits, "=+", at)
    local piece = sub(digits, at, (first or 0) - 1)
    pieces[#pieces + 1], count = piece, count + #piece
    local over = count % 4
    if not first then
      return over == 0 and concat(pieces) or nil
    elseif over >= 2 and over + last - first + 1 >= 4 then
      return concat(pieces)
    end
    at = last + 1
  end
end

--- Decode base64 as leniently as Python does: what is no digit is passed over, data ends at the padding. Empty when it
--- ends in the middle of a byte.
local function base64(text)
  local digits = unpadded((text:gsub("[^A-Za-z0-9+/=]", "")))
  if not digits then
    return ""
  end
  local bytes, count = {}, 0
  for at = 1, #digits, 4 do
    local a, b, c, d = byte(digits, at, at + 3)
    local value = SIXTETS[a] * 262144 + SIXTETS[b] * 4096 + (SIXTETS[c] or 0) * 64 + (SIXTETS[d] or 0)
    local high = floor(value / 65536)
    local middle = floor(value / 256) % 256
    count = count + 1
    bytes[count] = string.char(high, middle, value % 256)
  end
  return sub(concat(bytes), 1, floor(#digits * 3 / 4))
end

--- The bytes inside one PEM block: its lines without armour and headers.
local function content_of(block)
  local lines = {}
  for line in block:gmatch("[^\r\n]+") do
    if sub(line, 1, 1) ~= "-" and not find(line, ":", 1, true) then
      lines[#lines + 1] = line
    end
  end
  return base64(concat(lines))
end

--- The PEM blocks of a text as {label, text}, `MOST_PEM_BLOCKS` at most; a beginning without its end counts as one.
local function pem_blocks(text)
  local blocks, at = {}, 1
  for _ = 1, MOST_PEM_BLOCKS do
    local start = find(text, PEM_START, at, true)
    if not start then
      break
    end
    at = start + #PEM_START
    local label = sub(text, at, at + LONGEST_PEM_LABEL - 1)
    label = sub(label, 1, (find(label, "-----", 1, true) or #label + 1) - 1)
    local _, last = find(sub(text, at, at + LONGEST_PEM_BLOCK - 1), "-----END " .. label .. "-----", 1, true)
    if last then
      at = at + last
      blocks[#blocks + 1] = { label = label, text = sub(text, start, at - 1) }
    end
  end
  return blocks
end

--- Keys, remark and kind of one PEM block.
local function from_block(block, name)
  if block.label == ENCRYPTED_LABEL or find(block.text, ENCRYPTED_HEADER, 1, true) then
    return {}, REMARKS.encrypted, "encrypted"
  end
  local data = content_of(block.text)
  if data == "" then
    return {}, REMARKS.pem, "unknown"
  end
  local found, remark, kind = from_der(data, name)
  if #found == 0 and (kind == "text" or kind == "unknown") then
    remark, kind = REMARKS.pem, "unknown"
  end
  return found, remark, kind
end

--- Keys, remark and kind of PEM text.
local function from_pem(text, name)
  local found, remark, kind = {}, nil, nil
  for _, block in ipairs(pem_blocks(text)) do
    -- The parameters of an elliptic curve stand before its key, and are none.
    if sub(block.label, -#PARAMETERS_LABEL) ~= PARAMETERS_LABEL then
      local inside, block_remark, block_kind = from_block(block, name)
      for _, key in ipairs(inside) do
        key.pem = true
        found[#found + 1] = key
      end
      if #inside == 0 and not kind then
        remark, kind = block_remark, block_kind
      end
    end
  end
  if #found > 0 then
    return found, nil, "key"
  elseif kind then
    return found, remark, kind
  end
  return found, REMARKS["pem-cut"], "truncated"
end

-- Whole files ----------------------------------------------------------------------------------------------------

local CAPTURE_MAGICS = constants.keys.inspect.CAPTURE_MAGICS
local HTML_STARTS = constants.keys.inspect.HTML_STARTS

local function is_html(text)
  local start = sub(text, find(text, "[^ \t-\r]") or 1, TEXT_PROBE):lower()
  for _, beginning in ipairs(HTML_STARTS) do
    if sub(start, 1, #beginning) == beginning then
      return true
    end
  end
  return false
end

local function is_capture(data)
  for _, magic in ipairs(CAPTURE_MAGICS) do
    if sub(data, 1, #magic) == magic then
      return true
    end
  end
  return false
end

--- Find the RSA keys in the bytes of one file. Return them, what is to be said of the file (nil: nothing; never nil
--- without a key), and what kind of file it is, by the words of `analyzer.keys.model`. A key is {name, n, e, private,
--- bits, role, device_ids, encoding, pem, slot}: n and e are big-endian strings without leading zeros,
--- `private` has all eight numbers (nil for a public key) and `role` follows from the size: device, server or other.
--- An encrypted key is only reported. Never raises, linear in the size.
local function read(data, name)
  if data == "" then
    return {}, REMARKS.empty, "empty"
  end
  local text = as_text(data)
  if is_html(text) then
    return {}, REMARKS.html, "html"
  elseif is_capture(data) then
    return {}, REMARKS.capture, "capture"
  elseif not find(data, "[^\255]") or not find(data, "[^%z]") then
    return {}, fill(REMARKS.blank, { size = #data }), "blank"
  elseif not find(sub(text, 1, TEXT_PROBE), NOT_TEXT) and find(text, PEM_START, 1, true) then
    return from_pem(text, name)
  end
  local found, remark, kind = from_der(data, name)
  -- PEM text that somebody wrote into a slot: looked for last, because firmware images hold PEM text too.
  if #found == 0 and (kind == "unknown" or find(kind, "dump$")) and find(data, PEM_START, 1, true) then
    return from_pem(data, name)
  end
  return found, remark, kind
end

spark.keys = { read = read, reads_private = reads_private }
