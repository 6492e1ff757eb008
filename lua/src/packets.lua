-- Finds the TCP segment in a frame.
--
-- Wireshark tells a post-dissector the ports of a frame and gives it the frame's bytes, in every pass and for every
-- packet: retransmitted, out of order, without data. It does not tell where the TCP header stands, and fields are not
-- there in all passes. So the header is looked for: the two ports, with an IP header before them that leads there.
-- That works for whatever lies under IP (Ethernet, VLAN, PPP, cooked, 802.11) without knowing any of it.

local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local floor, max, min = math.floor, math.max, math.min

local TCP, ICMP, ICMP6 = 6, 1, 58
local IPV6_HEADER = 40
local SMALLEST_TCP = 20
local ACK, ACK_PUSH = 16, 24 -- flags of TCP
-- Where to look: link layers and tunnels put at most some dozens of bytes before IP, with names of radio captures
-- (radiotap, PPI) some hundreds.
local HEAD = 1024
-- Bytes of IPv6 extension headers that are walked; each is a multiple of 8.
local EXTENSIONS = 256
local EXTENSION_HEADERS = { [0] = true, [43] = true, [60] = true, [135] = true, [139] = true, [140] = true }

--- Whether an IPv6 header at `at` leads to TCP at `to` through extension headers (positions from 1).
local function walks_to(head, at, to)
  local kind, position = byte(head, at + 6), at + IPV6_HEADER
  while position < to do
    local following, size = byte(head, position, position + 1)
    if not EXTENSION_HEADERS[kind] or size == nil then return false end
    kind, position = following, position + 8 + 8 * size
  end
  return position == to and kind == TCP
end

--- Whether this IP header is a quotation in an ICMP error: the packet that it tells of was seen elsewhere.
local function is_quoted(head, at)
  local before = at - 8
  if before > 20 and floor(byte(head, before - 20) / 16) == 4 and byte(head, before - 11) == ICMP then return true end
  return before > IPV6_HEADER and floor(byte(head, before - IPV6_HEADER) / 16) == 6
    and byte(head, before - IPV6_HEADER + 6) == ICMP6
end

--- Returns where the IP header begins whose TCP header stands at `at`, and its version; nil when there is none.
local function ip_before(head, at)
  for words = 5, 15 do
    local start = at - 4 * words
    if start < 1 then break end
    if byte(head, start) == 0x40 + words and byte(head, start + 9) == TCP then return start, 4 end
  end
  for start = at - IPV6_HEADER, max(1, at - IPV6_HEADER - EXTENSIONS), -8 do
    if floor(byte(head, start) / 16) == 6 and walks_to(head, start, at) then return start, 6 end
  end
  return nil
end

--- Returns the positions (from 1) of the IP and the TCP header, and the IP version; nil without a segment in sight.
local function locate(head, source_port, target_port)
  local ports = char(floor(source_port / 256), source_port % 256, floor(target_port / 256), target_port % 256)
  local at = find(head, ports, 1, true)
  while at do
    if at > HEAD then return nil end
    local ip, version = ip_before(head, at)
    if ip and not is_quoted(head, ip) then return ip, at, version end
    at = find(head, ports, at + 1, true)
  end
  return nil
end

-- Frames of one capture are mostly built alike: where the last one had its headers, the next one has them.
local last_ip, last_tcp, last_version = 1, 21, 4

--- Whether the headers stand where the last frame had them.
local function as_before(head, source_port, target_port)
  local a, b, c, d = byte(head, last_tcp, last_tcp + 3)
  if d == nil or a * 256 + b ~= source_port or c * 256 + d ~= target_port then return false end
  if last_version == 4 then
    local words = (last_tcp - last_ip) / 4
    return byte(head, last_ip) == 0x40 + words and byte(head, last_ip + 9) == TCP and not is_quoted(head, last_ip)
  end
  return floor(byte(head, last_ip) / 16) == 6 and walks_to(head, last_ip, last_tcp) and not is_quoted(head, last_ip)
end

-- Where the last segment that was read has its headers and its end, for `is_damaged`.
local read_from, read_ip, read_tcp, read_stop

-- One table serves all packets: the engine keeps none of them.
local segment = {}

--- Reads the segment of a frame.
-- @param data the captured bytes of the frame
-- @param reported its size on the wire
-- @return segment as the engine takes it, without number and time, good until the next call; and the offset (from 0)
-- of its payload in the frame; or nil
local function read_segment(data, reported, source_port, target_port)
  local ip, tcp, version = last_ip, last_tcp, last_version
  if not as_before(data, source_port, target_port) then
    ip, tcp, version = locate(data, source_port, target_port)
    if not ip then return nil end
    last_ip, last_tcp, last_version = ip, tcp, version
  end
  local s1, s2, s3, s4, a1, a2, a3, a4, words, flags, w1, w2 = byte(data, tcp + 4, tcp + 15)
  if w2 == nil then return nil end
  local header = floor(words / 16) * 4
  local n1, n2, stop
  if version == 4 then
    local i1, i2, fragment, offset, hops
    n1, n2, i1, i2, fragment, offset, hops = byte(data, ip + 2, ip + 8)
    -- A piece of an IP packet holds a piece of a segment; Wireshark puts them together.
    if fragment % 64 ~= 0 or offset ~= 0 then return nil end
    stop, segment.ip_id, segment.ttl = ip + n1 * 256 + n2, i1 * 256 + i2, hops
    segment.source, segment.target = sub(data, ip + 12, ip + 15), sub(data, ip + 16, ip + 19)
  else
    n1, n2 = byte(data, ip + 4, ip + 5)
    stop, segment.ip_id, segment.ttl = ip + IPV6_HEADER + n1 * 256 + n2, nil, byte(data, ip + 7)
    segment.source, segment.target = sub(data, ip + 8, ip + 23), sub(data, ip + 24, ip + 39)
  end
  if n1 + n2 == 0 then stop = reported + 1 end -- left for the network card to fill in, or too large for the field
  local first = tcp + header
  if header < SMALLEST_TCP or stop < first then return nil end
  segment.source_port, segment.target_port = source_port, target_port
  segment.seq = ((s1 * 256 + s2) * 256 + s3) * 256 + s4
  segment.ack = ((a1 * 256 + a2) * 256 + a3) * 256 + a4
  if flags == ACK or flags == ACK_PUSH then -- nearly always
    segment.fin, segment.syn, segment.rst, segment.acks = false, false, false, true
  else
    segment.fin, segment.syn, segment.rst = flags % 2 >= 1, flags % 4 >= 2, flags % 8 >= 4
    segment.acks = flags % 32 >= 16
  end
  segment.length = stop - first
  segment.payload = sub(data, first, min(stop - 1, #data))
  segment.window = w1 * 256 + w2
  read_from, read_ip, read_tcp, read_stop = data, ip, tcp, stop
  return segment, first - 1
end

-- -- was it damaged on its way? ---------------------------------------------------------------------------------------

--- Sums up the 16-bit words of a stretch of bytes, the last byte filled up with a zero. Every message goes through
-- here, and calls cost more than sums: hence few and long steps.
local function sum_of(data, first, stop)
  local high, low, at = 0, 0, first
  while at + 16 <= stop do
    local a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p = byte(data, at, at + 15)
    high, low = high + a + c + e + g + i + k + m + o, low + b + d + f + h + j + l + n + p
    at = at + 16
  end
  if at + 8 <= stop then
    local a, b, c, d, e, f, g, h = byte(data, at, at + 7)
    high, low, at = high + a + c + e + g, low + b + d + f + h, at + 8
  end
  if at < stop then
    local a, b, c, d, e, f, g = byte(data, at, stop - 1)
    high, low = high + a + (c or 0) + (e or 0) + (g or 0), low + (b or 0) + (d or 0) + (f or 0)
  end
  return high * 256 + low
end

--- Whether the checksum of the last segment that was read is wrong; false when the capture cut the packet.
local function is_wrong()
  if read_stop - 1 > #read_from then return false end
  local addresses, stop = read_ip + 12, read_ip + 20
  if byte(read_from, read_ip) >= 0x60 then addresses, stop = read_ip + 8, read_ip + IPV6_HEADER end
  local sum = TCP + read_stop - read_tcp
  if stop == read_tcp then
    -- No options between the addresses and the TCP header.
    sum = sum + sum_of(read_from, addresses, read_stop)
  else
    sum = sum + sum_of(read_from, addresses, stop) + sum_of(read_from, read_tcp, read_stop)
  end
  return sum % 65535 ~= 0
end

-- Packets of one sender, with data or without, from which it is learnt whether its checksums mean anything.
local LEARNT_FROM = 4
-- Wrong ones beyond the right ones from which on they mean nothing, and cost nothing more.
local HOPELESS = 8
local SENDERS = spark.constants.tracker.SENDERS
local checks, senders = {}, 0

--- Whether the last segment that was read was damaged on its way: its checksum is wrong, and most of its sender's are
-- right. Where the capturing computer is the sender, its network card fills them in later, and none is right.
local function is_damaged(segment_read)
  local source = segment_read.source
  local counts = checks[source]
  if counts == nil then
    -- So many addresses are made up; who is real is learnt again from a few packets.
    if senders >= SENDERS then checks, senders = {}, 0 end
    counts = { right = 0, wrong = 0 }
    checks[source], senders = counts, senders + 1
  end
  local right, wrong = counts.right, counts.wrong
  if wrong - right >= HOPELESS or (segment_read.length == 0 and right + wrong >= LEARNT_FROM) then return false end
  if is_wrong() then
    counts.wrong = wrong + 1
    return right > wrong + 1
  end
  counts.right = right + 1
  return false
end

--- Forgets what was learnt of one capture.
local function forget()
  checks, senders = {}, 0
  read_from = nil
end

spark.packets = { is_damaged = is_damaged, forget = forget, read_segment = read_segment, locate = locate }
