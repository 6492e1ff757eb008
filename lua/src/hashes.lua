-- SHA-1 (FIPS 180-4) and HMAC-SHA1 (RFC 2104), for the server's signature over the session (PROTOCOL 2.3).

local byte, char = string.byte, string.char

local BLOCK = 64 -- bytes

--- Text of a function that takes the five words of state and the number of the block's first byte, and returns the
--- five words after that block. The choice of Ch and Maj is the one with the fewest calls.
local BLOCK_TEXT = [[
local byte = string.byte
local schedule = {}

return function(text, at, h1, h2, h3, h4, h5)
  local W = schedule
  for number = 1, 16 do
    local a, b, c, d = byte(text, at, at + 3)
    W[number] = a * 16777216 + b * 65536 + c * 256 + d
    at = at + 4
  end
  for number = 17, 80 do
    local word = XOR(W[number - 3], W[number - 8], W[number - 14], W[number - 16])
    W[number] = ROTATE(word, 1)
  end
  local a, b, c, d, e = h1, h2, h3, h4, h5
  for number = 1, 20 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(d, AND(b, XOR(c, d))), e, W[number], 1518500249), a, ROTATE(b, 30), c, d
  end
  for number = 21, 40 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(b, c, d), e, W[number], 1859775393), a, ROTATE(b, 30), c, d
  end
  for number = 41, 60 do
    a, b, c, d, e = ADD(ROTATE(a, 5), AND(b, c), AND(d, XOR(b, c)), e, W[number], 2400959708),
      a, ROTATE(b, 30), c, d
  end
  for number = 61, 80 do
    a, b, c, d, e = ADD(ROTATE(a, 5), XOR(b, c, d), e, W[number], 3395469782), a, ROTATE(b, 30), c, d
  end
  return ADD(h1, a), ADD(h2, b), ADD(h3, c), ADD(h4, d), ADD(h5, e)
end
]]

local OUTPUT_TEXT = [[
local char = string.char

return function(word)
  SPLIT(word, a, b, c, d)
  return char(a, b, c, d)
end
]]

--- The number as eight bytes.
local function eight_bytes(number)
  local bytes = {}
  for place = 8, 1, -1 do
    bytes[place] = number % 256
    number = math.floor(number / 256)
  end
  return char((table.unpack or unpack)(bytes))
end

--- The hashes over the given back end of `bits`: a table of the functions `sha1` and `hmac_sha1`.
local function on(backend)
  local take_block, word_bytes

  --- SHA-1 of the bytes: 20 bytes.
  local function sha1(bytes)
    if not take_block then
      take_block = backend.compile(BLOCK_TEXT, "sha1")
      word_bytes = backend.compile(OUTPUT_TEXT, "sha1 output")
    end
    local filler = ("\0"):rep((-#bytes - 9) % BLOCK)
    local text = bytes .. "\128" .. filler .. eight_bytes(#bytes * 8)
    local h1, h2, h3, h4, h5 = 1732584193, 4023233417, 2562383102, 271733878, 3285377520
    for at = 1, #text, BLOCK do
      h1, h2, h3, h4, h5 = take_block(text, at, h1, h2, h3, h4, h5)
    end
    return word_bytes(h1) .. word_bytes(h2) .. word_bytes(h3) .. word_bytes(h4) .. word_bytes(h5)
  end

  --- The bytes of a key, each combined with the same byte.
  local function masked(key, mask)
    local bytes = {byte(key, 1, BLOCK)}
    for place = 1, BLOCK do bytes[place] = char(backend.bxor(bytes[place], mask)) end
    return table.concat(bytes)
  end

  --- HMAC-SHA1 of the message under the key: 20 bytes.
  local function hmac_sha1(key, message)
    if #key > BLOCK then key = sha1(key) end
    key = key .. ("\0"):rep(BLOCK - #key)
    return sha1(masked(key, 92) .. sha1(masked(key, 54) .. message))
  end

  return {sha1 = sha1, hmac_sha1 = hmac_sha1}
end

spark.hashes = on(spark.bits)
spark.hashes.on = on
spark.sha1, spark.hmac_sha1 = spark.hashes.sha1, spark.hashes.hmac_sha1
