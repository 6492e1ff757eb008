-- AES-128 (FIPS 197), in CBC for the frames (PROTOCOL 4.1) and one block at a time for the constants of a zero key.
--
-- Each round looks up four tables per word. The text of the rounds is written out in full, with every byte, word and
-- round key a local variable, because table reads and calls are what costs in Lua. All of it is made at the first
-- use. Where Wireshark offers a cipher of its own (4.6 on), that one decrypts.

local constants = spark.constants
local concat = table.concat
local bits = spark.bits

local BLOCK = constants.catalogue.BLOCK
local NO_IV = ("\0"):rep(BLOCK)
local ROUNDS = 10
local ROUND_KEYS = 4 * (ROUNDS + 1) -- words
local BYTES = 256
local POLYNOMIAL = 283 -- x^8 + x^4 + x^3 + x + 1

--- Four tables of words, the bytes of each table's words turned by one from those of the table before.
local function turned(word_bytes)
  local first, second, third, fourth = {}, {}, {}, {}
  for value = 0, BYTES - 1 do
    local a, b, c, d = word_bytes(value)
    first[value] = a * 16777216 + b * 65536 + c * 256 + d
    second[value] = d * 16777216 + a * 65536 + b * 256 + c
    third[value] = c * 16777216 + d * 65536 + a * 256 + b
    fourth[value] = b * 16777216 + c * 65536 + d * 256 + a
  end
  return {first, second, third, fourth}
end

local function make_tables()
  local bxor = bits.bxor
  local power, logarithm = {}, {} -- of 3, which generates the field
  local element = 1
  for exponent = 0, BYTES - 2 do
    power[exponent], logarithm[element] = element, exponent
    local doubled = element * 2
    if doubled >= BYTES then doubled = bxor(doubled, POLYNOMIAL) end
    element = bxor(element, doubled)
  end
  local function product(a, b)
    if a == 0 then return 0 end
    return power[(logarithm[a] + logarithm[b]) % (BYTES - 1)]
  end

  local substitution, inverse_substitution = {}, {}
  for value = 0, BYTES - 1 do
    local inverse = value > 0 and power[(BYTES - 1 - logarithm[value]) % (BYTES - 1)] or 0
    local sum, rotated = bxor(inverse, 99), inverse
    for _ = 1, 4 do
      rotated = rotated * 2
      if rotated >= BYTES then rotated = rotated - (BYTES - 1) end
      sum = bxor(sum, rotated)
    end
    substitution[value], inverse_substitution[sum] = sum, value
  end
  return {
    substitution = substitution,
    inverse_substitution = inverse_substitution,
    encryption = turned(function(value)
      local s = substitution[value]
      local doubled = product(s, 2)
      return doubled, s, s, bxor(doubled, s)
    end),
    decryption = turned(function(value)
      local s = inverse_substitution[value]
      return product(s, 14), product(s, 9), product(s, 13), product(s, 11)
    end),
  }
end

local known_tables

local function tables()
  known_tables = known_tables or make_tables()
  return known_tables
end

--- Text of the ten rounds over the words s0 to s3, with the tables T1 to T4 and S. `step` says from which column the
--- next byte of a word comes: 1 to encrypt, -1 to decrypt (the two ShiftRows). The last round also adds the words
--- `last[1]` to `last[4]`, given as text. The result is the bytes e0, f0, g0, h0, e1 and so on.
local function rounds(step, last)
  local lines = {}
  local function write(text, ...) lines[#lines + 1] = text:format(...) end
  for round = 1, ROUNDS do
    if round < ROUNDS then write("do") end
    for column = 0, 3 do
      write("SPLIT(s%d, a%d, b%d, c%d, d%d)", column, column, column, column, column)
    end
    for column = 0, 3 do
      local second, third, fourth = (column + step) % 4, (column + 2 * step) % 4, (column + 3 * step) % 4
      local key = 4 * round + column + 1
      if round < ROUNDS then
        write("s%d = XOR(T1[a%d], T2[b%d], T3[c%d], T4[d%d], k%d)", column, column, second, third, fourth, key)
      else
        write("local o%d = XOR(S[a%d] * 16777216 + S[b%d] * 65536 + S[c%d] * 256 + S[d%d], k%d%s)",
          column, column, second, third, fourth, key, last[column + 1])
      end
    end
    if round < ROUNDS then write("end") end
  end
  for column = 0, 3 do
    write("SPLIT(o%d, e%d, f%d, g%d, h%d)", column, column, column, column, column)
  end
  return concat(lines, "\n") .. "\n"
end

--- Text that declares the words of the 16 bytes at `at`.
local function words_of(text, at, w0, w1, w2, w3)
  return ([[
  local x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16 = byte(TEXT, AT, AT + 15)
  local W0, W1 = x1 * 16777216 + x2 * 65536 + x3 * 256 + x4, x5 * 16777216 + x6 * 65536 + x7 * 256 + x8
  local W2, W3 = x9 * 16777216 + x10 * 65536 + x11 * 256 + x12, x13 * 16777216 + x14 * 65536 + x15 * 256 + x16
  ]]):gsub("%u+%d?", {TEXT = text, AT = at, W0 = w0, W1 = w1, W2 = w2, W3 = w3})
end

local SCHEDULES = [[
local byte, char, concat, unpack = string.byte, string.char, table.concat, table.unpack or unpack

local function schedule(key, S)
  local words = {}
  for number = 1, 4 do
    local a, b, c, d = byte(key, 4 * number - 3, 4 * number)
    words[number] = a * 16777216 + b * 65536 + c * 256 + d
  end
  local constant = 1
  for number = 5, 44 do
    local word = words[number - 1]
    if number % 4 == 1 then
      SPLIT(word, a, b, c, d)
      word = XOR(S[b] * 16777216 + S[c] * 65536 + S[d] * 256 + S[a], constant * 16777216)
      constant = constant == 128 and 27 or constant * 2
    end
    words[number] = XOR(word, words[number - 4])
  end
  return words
end

local function inverse_schedule(words, S, T)
  local T1, T2, T3, T4 = T[1], T[2], T[3], T[4]
  local inverse = {}
  for round = 0, 10 do
    for column = 1, 4 do
      local word = words[40 - 4 * round + column]
      if round > 0 and round < 10 then
        SPLIT(word, a, b, c, d)
        word = XOR(T1[ S[a] ], T2[ S[b] ], T3[ S[c] ], T4[ S[d] ])
      end
      inverse[4 * round + column] = word
    end
  end
  return inverse
end
]]

local WORDS_TO_BLOCK = "char(e0, f0, g0, h0, e1, f1, g1, h1, e2, f2, g2, h2, e3, f3, g3, h3)"

--- Text of four functions: both key schedules, decryption of whole blocks in CBC, encryption of a block.
local function cipher_text()
  local round_keys = {}
  for number = 1, ROUND_KEYS do round_keys[number] = "k" .. number end
  local opening = "local T1, T2, T3, T4 = T[1], T[2], T[3], T[4]\n"
    .. "local " .. concat(round_keys, ", ") .. " = unpack(keys)\n"
  local first_round = "local s0, s1, s2, s3 = XOR(w0, k1), XOR(w1, k2), XOR(w2, k3), XOR(w3, k4)\n"
  return concat({
    SCHEDULES,
    "local pieces = {}",
    "local function decrypt_cbc(keys, S, T, iv, text)",
    opening,
    words_of("iv", "1", "p0", "p1", "p2", "p3"),
    "local count = 0",
    "for at = 1, #text - 15, 16 do",
    words_of("text", "at", "w0", "w1", "w2", "w3"),
    first_round,
    rounds(-1, {", p0", ", p1", ", p2", ", p3"}),
    "count = count + 1",
    "pieces[count] = " .. WORDS_TO_BLOCK,
    "p0, p1, p2, p3 = w0, w1, w2, w3",
    "end",
    "return concat(pieces, '', 1, count)",
    "end",
    "local function encrypt_block(keys, S, T, block)",
    opening,
    words_of("block", "1", "w0", "w1", "w2", "w3"),
    first_round,
    rounds(1, {"", "", "", ""}),
    "return " .. WORDS_TO_BLOCK,
    "end",
    "return schedule, inverse_schedule, decrypt_cbc, encrypt_block",
  }, "\n")
end

--- AES over the given back end of `bits`: a table of the functions `new`, `encryptor` and `encrypt_block`.
local function on(backend)
  local schedule, inverse_schedule, decrypt_cbc, encrypt_block

  local function prepare()
    if not schedule then
      schedule, inverse_schedule, decrypt_cbc, encrypt_block = backend.compile(cipher_text(), "aes")
    end
    return tables()
  end

  local Decryptor = {}
  Decryptor.__index = Decryptor

  --- Plaintext, padding included, of whole blocks; bytes behind the last whole block are left out.
  function Decryptor:decrypt_cbc(iv, ciphertext)
    return decrypt_cbc(self.keys, self.substitution, self.tables, iv, ciphertext)
  end

  --- The block decrypted by itself, without chaining.
  function Decryptor:decrypt_block(block)
    return self:decrypt_cbc(NO_IV, block)
  end

  local Encryptor = {}
  Encryptor.__index = Encryptor

  --- The 16 bytes encrypted by themselves, without chaining.
  function Encryptor:encrypt_block(block)
    return encrypt_block(self.keys, self.substitution, self.tables, block)
  end

  local cipher = {}

  --- Decryption under a key of 16 bytes.
  function cipher.new(key)
    local made = prepare()
    local keys = inverse_schedule(schedule(key, made.substitution), made.substitution, made.decryption)
    local parts = {keys = keys, substitution = made.inverse_substitution, tables = made.decryption}
    return setmetatable(parts, Decryptor)
  end

  --- Encryption under a key of 16 bytes.
  function cipher.encryptor(key)
    local made = prepare()
    local parts = {
      keys = schedule(key, made.substitution), substitution = made.substitution, tables = made.encryption,
    }
    return setmetatable(parts, Encryptor)
  end

  function cipher.encrypt_block(key, block)
    return cipher.encryptor(key):encrypt_block(block)
  end

  return cipher
end

-- Wireshark's own cipher, with the methods of a Decryptor.
local Borrowed = {}
Borrowed.__index = Borrowed

local function borrow(key)
  local handle = GcryptCipher.open(GCRY_CIPHER_AES, GCRY_CIPHER_MODE_CBC, 0)
  handle:setkey(ByteArray.new(key, true))
  return setmetatable({handle = handle}, Borrowed)
end

function Borrowed:decrypt_cbc(iv, ciphertext)
  -- The library refuses nothing at all, and blocks that are not whole.
  local whole = #ciphertext - #ciphertext % BLOCK
  if whole == 0 then return "" end
  local bytes = ByteArray.new(ciphertext:sub(1, whole), true)
  self.handle:setiv(ByteArray.new(iv, true))
  self.handle:decrypt(bytes)
  return bytes:raw()
end

function Borrowed:decrypt_block(block)
  return self:decrypt_cbc(NO_IV, block)
end

local aes = on(bits)
local own_new = aes.new
local borrowing -- whether Wireshark's cipher is there and answers as ours does; nil: not yet tried

local function try_borrowing()
  local key, iv, text = ("k"):rep(BLOCK), ("i"):rep(BLOCK), ("text"):rep(BLOCK / 2)
  local ours = own_new(key):decrypt_cbc(iv, text)
  local works, theirs = pcall(function()
    local cipher = borrow(key)
    -- Twice, because what the first call leaves behind must not reach the second.
    return cipher:decrypt_cbc(iv, text) .. cipher:decrypt_cbc(iv, text)
  end)
  return works and theirs == ours .. ours
end

function aes.new(key)
  if borrowing == nil then borrowing = GcryptCipher ~= nil and try_borrowing() end
  return borrowing and borrow(key) or own_new(key)
end

aes.on = on
spark.aes = aes
