-- Session keys from a key log, and the ring: all keys a user named, sorted by what they are.
--
-- Loading does no arithmetic on keys, so that a server's whole folder is read in the time it takes to read the files.

local constants = spark.constants
local keys = spark.keys

local sub, find, format = string.sub, string.find, string.format
local fill = spark.wording.fill

-- Session keys (PROTOCOL 4.1) ------------------------------------------------------------------------------------

local BLOCK = constants.catalogue.BLOCK

--- What message 3 carries: {key, iv, salt, blob, first_message_ids}, split from the 40-byte blob. The ids are those
--- that a device's hello can have: the seed read high byte first (Cores, Photons to 0.7), then low byte first.
local function session_key(blob)
  local high, low = blob:byte(2 * BLOCK + 1, 2 * BLOCK + 2)
  return {
    key = sub(blob, 1, BLOCK),
    iv = sub(blob, BLOCK + 1, 2 * BLOCK),
    salt = sub(blob, 2 * BLOCK + 1),
    blob = blob,
    first_message_ids = { (high * 256 + low + 1) % 65536, (low * 256 + high + 1) % 65536 },
  }
end

-- The key log ----------------------------------------------------------------------------------------------------

local LABEL = constants.keys.keylog.LABEL
local MOST_BAD_LINES = constants.keys.keylog.MOST_BAD_LINES
local LONGEST_LINE = constants.keys.keylog.LONGEST_LINE
local NONCE_SIZE = constants.catalogue.NONCE_SIZE
local SESSION_KEY_SIZE = constants.catalogue.SESSION_KEY_SIZE

-- What ends a line and what parts words, of the characters that Python's text has for it in ASCII.
local LINE_END = "[\n\v\f\r\28-\30]"
local WORD = "[^\t-\r\28-\32]+"

local function from_hex(digits)
  return (digits:gsub("..", function(two)
    return string.char(tonumber(two, 16))
  end))
end

local function to_hex(bytes)
  return (bytes:gsub(".", function(character)
    return format("%02x", character:byte())
  end))
end

--- What is wrong with these digits; nil when they are `size` bytes.
local function wrong_digits(digits, size, what)
  local at = find(digits, "[^0-9a-fA-F]")
  if at then
    return fill(constants.keys.keylog.NOT_HEX, { what = what, at = at })
  elseif #digits ~= 2 * size then
    return fill(constants.keys.keylog.WRONG_DIGITS, { what = what, count = #digits, wanted = 2 * size })
  end
  return nil
end

--- Nonce (nil for `-`) and session key of one line, in lower-case digits; or nil, nil and what is wrong with it.
local function read_entry(words)
  if words[1] ~= LABEL then
    return nil, nil, fill(constants.keys.keylog.NOT_LABELLED, { label = LABEL })
  elseif #words ~= 3 then
    return nil, nil, fill(constants.keys.keylog.WRONG_FIELDS, { label = LABEL, count = #words - 1 })
  end
  local nonce = words[2] ~= "-" and words[2] or nil
  local wrong = nonce and wrong_digits(nonce, NONCE_SIZE, "nonce")
    or wrong_digits(words[3], SESSION_KEY_SIZE, "session key")
  if wrong then
    return nil, nil, wrong
  end
  return nonce and nonce:lower(), words[3]:lower()
end

--- Read a key log: {by_nonce, without_nonce, bad_lines}. Nonces and session keys stay lower-case digits, because a
--- capture needs few of a long log: `by_nonce` has the array of session keys that were logged with a nonce, each once;
--- `without_nonce` is an array, `bad_lines` one of {number, reason}. Never raises.
local function read_key_log(text)
  local log = { by_nonce = {}, without_nonce = {}, bad_lines = {} }
  local seen, number, at = {}, 0, 1
  while at <= #text do
    local ending = find(text, LINE_END, at) or #text + 1
    local line = sub(text, at, math.min(ending, at + LONGEST_LINE) - 1)
    number = number + 1
    at = ending + (sub(text, ending, ending + 1) == "\r\n" and 2 or 1)
    local words = {}
    for word in sub(line, 1, (find(line, "#", 1, true) or #line + 1) - 1):gmatch(WORD) do
      words[#words + 1] = word
    end
    if words[1] then
      local nonce, blob, wrong = read_entry(words)
      if wrong then
        if #log.bad_lines < MOST_BAD_LINES then
          log.bad_lines[#log.bad_lines + 1] = { number = number, reason = wrong }
        end
      elseif not nonce then
        log.without_nonce[#log.without_nonce + 1] = blob
      elseif not seen[nonce .. blob] then
        seen[nonce .. blob] = true
        local logged = log.by_nonce[nonce] or {}
        log.by_nonce[nonce] = logged
        logged[#logged + 1] = blob
      end
    end
  end
  return log
end

-- Files ----------------------------------------------------------------------------------------------------------

local LARGEST_KEY_FILE = constants.keys.ring.LARGEST_KEY_FILE
local LARGEST_KEY_LOG = constants.keys.keylog.LARGEST_KEY_LOG
-- Files looked at in one folder, and bytes read of them: a wrong folder must not hold Wireshark up for more than a few
-- seconds. A server's folder of five thousand keys has 5 MB.
local MOST_FILES = 5000
local MOST_FOLDER_BYTES = 64 * 1048576

--- How files are reached: `read(path, limit)` gives up to `limit` bytes and one more, or nil and why not;
--- `list(path)` the names in a folder, or nil when it is none. Lua itself cannot list a folder; Wireshark's `Dir` can.
local files = {}

function files.read(path, limit)
  local file, trouble = io.open(path, "rb")
  if not file then
    return nil, trouble
  end
  -- Lua 5.2 reserves what it is asked to read; a thousand times 4 MB would be slow.
  local size = file:seek("end")
  file:seek("set")
  local data, why = file:read(math.min(size or limit, limit) + 1)
  file:close()
  if not data and why then
    return nil, path .. ": " .. why
  end
  return data or ""
end

function files.list(path)
  local opened, entries = pcall(function()
    return Dir.open(path)
  end)
  if not opened then
    return nil
  end
  local names = {}
  for name in entries do
    names[#names + 1] = name
    if #names > MOST_FILES then
      break
    end
  end
  entries:close()
  return names
end

--- A path as a user may have pasted it: without blanks and quotes around it, `~` at its front as the home folder.
local function cleaned(path)
  path = path:match("^%s*(.-)%s*$")
  path = path:match('^"%s*(.-)%s*"$') or path:match("^'%s*(.-)%s*'$") or path
  local home = os.getenv("HOME") or os.getenv("USERPROFILE")
  if home and (path == "~" or path:find("^~[/\\]")) then
    path = home .. sub(path, 2)
  end
  return path
end

local function joined(folder, name)
  return folder:find("[/\\]$") and folder .. name or folder .. "/" .. name
end

-- The ring -------------------------------------------------------------------------------------------------------

local REMARKS = constants.keys.inspect.REMARKS
local UTF8_MARK = constants.keys.inspect.UTF8_MARK
-- Lines of a key log that are complained of one by one; what has more is some other file.
local BAD_LINES_NAMED = 5

--- Keys by role: `device_keys`, `server_keys`, `other_keys` hold each modulus once, the private half where any file had
--- it; `device_private` and `server_private` those of them that open something; `loose_session_keys` those that were
--- logged without a nonce; `notes` lines for the user, `problems` those of them that tell of something wrong; `empty`
--- whether there is nothing to try.
local KeyRing = {}
KeyRing.__index = KeyRing

local function note(ring, ...)
  local text = format(...)
  ring.notes[#ring.notes + 1], ring.problems[#ring.problems + 1] = text, text
end

--- How unlike the device's own slot a find is, 0 for the same: which of several files speaks for the device.
local function distance(key)
  return (key.encoding ~= "pkcs1" and 2 or 0) + (key.pem and 1 or 0)
end

--- Take a find in. The private half wins and names the key; of several, the one that is most like the device's slot.
local function take_key(ring, other)
  local key = ring.by_modulus[other.n]
  if not key then
    key = other
    ring.by_modulus[key.n], ring.found[#ring.found + 1] = key, key
  elseif other.private and not (key.private and distance(key) <= distance(other)) then
    key.name = key.private and key.name or other.name
    key.e, key.private, key.slot, key.encoding, key.pem = other.e, other.private, other.slot, other.encoding, other.pem
  end
  for _, id in ipairs(other.device_ids) do
    local named = ring.by_device[id] or {}
    ring.by_device[id] = named
    if not named[key] then
      named[key], named[#named + 1] = true, key
      if key ~= other then
        key.device_ids[#key.device_ids + 1] = id
      end
    end
  end
end

--- Inspect one file: the keys in it (taken into the ring), the remark, the kind; nil and why when it cannot be read.
local function take_file(ring, path)
  local data, trouble = files.read(path, LARGEST_KEY_FILE)
  if not data then
    return nil, trouble
  elseif #data > LARGEST_KEY_FILE then
    return {}, REMARKS.large, "unknown", #data
  end
  local found, remark, kind = keys.read(data, path)
  for _, key in ipairs(found) do
    take_key(ring, key)
  end
  return found, remark, kind, #data
end

local function take_folder(ring, preference, folder, names)
  table.sort(names)
  if #names > MOST_FILES then
    note(ring, "%s: %s: more than %d files; the rest was not looked at.", preference, folder, MOST_FILES)
  end
  local looked, with_keys, locked, bytes = 0, 0, 0, 0
  for index = 1, math.min(#names, MOST_FILES) do
    if bytes > MOST_FOLDER_BYTES then
      note(ring, "%s: %s: more than %d MB; from %s on it was not looked at.", preference, folder,
        MOST_FOLDER_BYTES / 1048576, names[index])
      break
    end
    local path = joined(folder, names[index])
    local found, remark, kind, size = take_file(ring, path)
    if found then
      looked, bytes = looked + 1, bytes + size
      with_keys = with_keys + (#found > 0 and 1 or 0)
      locked = locked + (kind == "encrypted" and 1 or 0)
    elseif not files.list(path) then
      looked = looked + 1
      note(ring, "%s: %s", preference, remark)
    end
  end
  local more = locked > 0 and format(", %d locked with a password", locked) or ""
  local count = format("%s: %s: %d of %d files hold keys%s.", preference, folder, with_keys, looked, more)
  if with_keys == 0 or locked > 0 then
    note(ring, "%s", count)
  else
    -- Folders of keys hold other files, too.
    ring.notes[#ring.notes + 1] = count
  end
end

--- Say of a file named alone what is odd about it: another role than the preference's, or only the public half where
--- that opens nothing.
local function check_role(ring, preference, role, path, found)
  local fits, private = false, false
  for _, key in ipairs(found) do
    fits, private = fits or key.role == role, private or key.private ~= nil
  end
  local values = { name = path, option = preference, bits = found[1].bits, role = found[1].role }
  if not fits then
    note(ring, "%s", fill(constants.keys.ring.ROLE_SWAPPED, values))
  elseif role == "device" and not private then
    note(ring, "%s", fill(constants.keys.ring.PUBLIC_GIVEN, values))
  end
end

--- Take in what one preference names: nothing, a file, or a folder (not those inside it).
local function take_path(ring, preference, role, path)
  if path == "" then
    return
  end
  local names = files.list(path)
  if names then
    take_folder(ring, preference, path, names)
    return
  end
  local found, remark, kind = take_file(ring, path)
  if not found then
    note(ring, "%s: %s", preference, remark)
  elseif kind == "encrypted" then
    note(ring, "%s: %s: %s, which Wireshark cannot open. Take it off: openssl rsa -in %s -out plain.pem", preference,
      path, remark, path)
  elseif remark then
    note(ring, "%s: %s: %s.", preference, path, remark)
  end
  if found and #found > 0 then
    check_role(ring, preference, role, path, found)
  end
end

local function take_key_log(ring, preference, path)
  if path == "" then
    return
  end
  local data, trouble = files.read(path, LARGEST_KEY_LOG)
  if not data then
    note(ring, "%s: %s", preference, trouble)
    return
  end
  if sub(data, 1, #UTF8_MARK) == UTF8_MARK then
    data = sub(data, #UTF8_MARK + 1)
  end
  local log = read_key_log(data)
  local seen = {}
  ring.logged = log.by_nonce
  for _, blob in ipairs(log.without_nonce) do
    if not seen[blob] then
      seen[blob] = true
      ring.loose_session_keys[#ring.loose_session_keys + 1] = session_key(from_hex(blob))
    end
  end
  local bad = log.bad_lines
  for index = 1, math.min(#bad, BAD_LINES_NAMED) do
    local values = { name = path, number = bad[index].number, reason = bad[index].reason }
    note(ring, "%s: %s", preference, fill(constants.keys.ring.BAD_LINE, values))
  end
  if #bad > BAD_LINES_NAMED then
    note(ring, "%s: %s: more lines like that, the next is line %d.", preference, path, bad[BAD_LINES_NAMED + 1].number)
  end
  if next(log.by_nonce) == nil and #log.without_nonce == 0 then
    note(ring, "%s: %s: no session key in it. Make one: sparkshark decrypt --keylog-out FILE", preference, path)
  end
end

--- Read what the preferences `device_key`, `server_key` and `keylog` of `named` name; each may be empty. Both key
--- preferences take any key, the role follows from the content. Never raises: what is wrong becomes a note.
function KeyRing.load(named)
  local ring = setmetatable({
    device_keys = {},
    server_keys = {},
    other_keys = {},
    device_private = {},
    server_private = {},
    loose_session_keys = {},
    notes = {},
    problems = {},
    found = {},
    by_modulus = {},
    by_device = {},
    logged = {},
  }, KeyRing)
  local device_path, server_path = cleaned(named.device_key), cleaned(named.server_key)
  take_path(ring, "spark.device_key", "device", device_path)
  if server_path ~= device_path then
    take_path(ring, "spark.server_key", "server", server_path)
  end
  take_key_log(ring, "spark.keylog", cleaned(named.keylog))
  for _, key in ipairs(ring.found) do
    local same_role = ring[key.role .. "_keys"]
    same_role[#same_role + 1] = key
    local private = key.private and ring[key.role .. "_private"]
    if private then
      private[#private + 1] = key
    end
  end
  ring.empty = #ring.found == 0 and next(ring.logged) == nil and #ring.loose_session_keys == 0
  return ring
end

--- The key with this modulus (trimmed big-endian string), the private half if it is here; nil without one.
function KeyRing:key_with_modulus(n)
  return self.by_modulus[n]
end

--- The keys in files whose names carry this device id (24 hex digits), as servers name them.
function KeyRing:keys_of_device(device_id)
  return self.by_device[device_id:lower()] or {}
end

--- The session keys worth trying for a conversation, those logged with its nonce (40 bytes or nil) first.
function KeyRing:session_keys_for(nonce)
  local found = {}
  for _, blob in ipairs(nonce and self.logged[to_hex(nonce)] or {}) do
    found[#found + 1] = session_key(from_hex(blob))
  end
  for _, key in ipairs(self.loose_session_keys) do
    found[#found + 1] = key
  end
  return found
end

--- How the firmware reads this private key, by the file most like its slot: {ok, differences}; nil without a private
--- half. What the device itself holds may be another file: only a fresh dump is sure (SPK306).
function KeyRing:firmware_reading(key)
  local own = self.by_modulus[key.n]
  if not own or not own.private then
    return nil
  end
  own.reading = own.reading or keys.reads_private(own.slot, own.private)
  return own.reading
end

spark.session_key, spark.read_key_log, spark.files, spark.KeyRing = session_key, read_key_log, files, KeyRing
