"""The findings, as data: one row a diagnosis, with every word that a person reads about it.

`explain`, the reports, the README's table and the Lua plugin are views of `FINDINGS`. Nothing here knows how a
finding is detected; that is in `analyzer.rules`. Codes go by group and are never used twice; a retired code
keeps its row. Sources are sections of the diagnosis catalogue and of the protocol reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How bad it is for the device's connection."""

    CRITICAL = "critical"  # cannot connect
    MAJOR = "major"  # drops, or loses data
    MINOR = "minor"
    INFO = "info"
    OK = "ok"


class Confidence(StrEnum):
    """How sure the statement is."""

    CERTAIN = "certain"
    STRONG = "strong"
    LIKELY = "likely"
    HINT = "hint"


BAD: Final = (Severity.CRITICAL, Severity.MAJOR)
"""What harms the connection; the rest are remarks."""
SEVERITY_ORDER: Final = tuple(Severity)
CONFIDENCE_ORDER: Final = tuple(Confidence)
CONFIDENCE_WORDS: Final = {
    Confidence.CERTAIN: "Certain",
    Confidence.STRONG: "Very likely",
    Confidence.LIKELY: "Likely",
    Confidence.HINT: "Only a hint",
}


def weaker(one: Confidence, other: Confidence) -> Confidence:
    """Return the less sure of two confidences."""
    return max(one, other, key=CONFIDENCE_ORDER.index)


class Group(StrEnum):
    """What a finding is about."""

    HEALTHY = "healthy"
    CONNECTIVITY = "connectivity"
    HANDSHAKE = "handshake"
    KEYS = "keys"
    MISPARSE = "misparse"
    SESSION = "session"
    UPDATE = "update"
    CAPTURE = "capture"
    NOT_SPARK = "not Spark"


STATE_OF_GROUP: Final = {
    Group.HEALTHY: "WORKING",
    Group.CONNECTIVITY: "NOT CONNECTING",
    Group.HANDSHAKE: "NOT CONNECTING",
    Group.KEYS: "NOT CONNECTING",
    Group.SESSION: "KEEPS DROPPING",
    Group.UPDATE: "UPDATE FAILS",
}
"""The word in capitals that a report begins with when a critical or major finding of this group leads."""


@dataclass(frozen=True, slots=True)
class FindingSpec:
    """One diagnosis. Texts are plain English of the vocabulary in which device and server are the two ends."""

    code: str
    name: str
    severity: Severity
    group: Group
    title: str  # headline of `explain`
    short: str  # what the report calls it when it is ruled out
    says: str  # the sentence for the owner
    of: str  # the same as a predicate, for "192.168.1.104 ..." where several devices are told of
    means: str
    looks: str
    led: str = ""
    fix: tuple[str, ...] = ()  # numbered steps; one that begins with two blanks is a command, one with "· " an aside
    causes: tuple[str, ...] = ()
    settle: str = ""
    not_it: tuple[tuple[str, str], ...] = ()  # look-alikes: code, and how it differs
    engineer: str = ""
    specific: int = 0  # among equals, the more specific finding is shown first
    source: str = ""


DOCTOR: Final = "  particle keys doctor DEVICE_ID"
DOCTOR_SENDS: Final = 'Read its output to the end: SENDING the key must succeed, not only "Okay! New keys in place".'
OWN_SERVER: Final = "· Own server, not the Particle cloud: sparkshark explain SPK301"
DFU: Final = "Put the device in DFU mode (blinking yellow) on USB, and type"

_SPECS: Final = (
    FindingSpec(
        "SPK001",
        "healthy-session",
        Severity.OK,
        Group.HEALTHY,
        title="The session works",
        short="A working session",
        says="The device logs in and stays connected. If something does not work, the cause is elsewhere: the"
        " program on the device, claiming, or an access token.",
        of="logs in and stays connected",
        means='Greeting, "who I am", reply and both hellos are there. A server says hello only after it has'
        " opened the device's hello, so both have the same session key.",
        looks="40, 256 and 384 bytes, then frames of legal length both ways; when idle, 18 bytes from the device"
        " every 15 s, answered by 18 bytes.",
        led="breathing cyan",
        settle="--device-key FILE opens the messages and makes it certain.",
        not_it=(("SPK701", "the login is not in the capture"),),
        engineer="M1 to M5 complete; the first server frame is the key-free proof.",
        source="DIAGNOSES SPK001; PROTOCOL 2.1",
    ),
    FindingSpec(
        "SPK101",
        "server-never-answers",
        Severity.CRITICAL,
        Group.CONNECTIVITY,
        title="Nothing answers at the server's address",
        short="Network, firewall",
        says="Nothing answers at {server} port {port}. No key can cause this.",
        of="gets no answer from {server}",
        means="The device asks to connect and gets neither an answer nor a refusal. Something on the way drops"
        " the packets, or the server is switched off.",
        looks="SYN, repeated with growing pauses; no SYN-ACK, no RST.",
        led="blinking cyan, then 2 blinks (no internet) or 3 blinks (cloud unreachable)",
        fix=(
            "On a computer in the same Wi-Fi:  nc -vz {server} {port}",
            "· Windows: Test-NetConnection {server} -Port {port}",
            "It fails too: try the device on a phone hotspot. If it works there, let TCP {port} OUT in the router."
            " Nothing has to be let in.",
            "It succeeds: only this device is blocked (MAC filter?).",
        ),
        causes=("a firewall drops TCP 5683", "the server is off", "a stale local address in the device"),
        settle="An ICMP refusal in the capture, or the test from a computer beside the device.",
        not_it=(
            ("SPK702", "then the device's own answers to packets that are not in the capture show"),
            ("SPK102", "a refusal is an answer: a RST is in the capture"),
        ),
        engineer="SYN retransmission without SYN-ACK; ICMP type 3 makes it certain and names who said so.",
        source="DIAGNOSES SPK101",
    ),
    FindingSpec(
        "SPK102",
        "connection-refused",
        Severity.CRITICAL,
        Group.CONNECTIVITY,
        title="The connection is refused",
        short="Refused, nothing listening",
        says="{server} refuses the connection on port {port}: the address answers, but nothing listens there, or"
        " a firewall says no.",
        of="is refused by {server}",
        means="The request to connect was answered with a RST, or the connection was cut off before a byte came.",
        looks="SYN, then RST; or SYN-ACK and a RST from the server's side before any data.",
        led="3 blinks",
        fix=(
            "Own server: is it running, and on the network's address, not only on localhost?",
            "  ss -ltnp | grep {port}",
            "In a container: is port {port} published?",
            "Compare address and port with what the device has stored:",
            "  particle keys address",
        ),
        causes=(
            "the server program is not running",
            "it listens on another address or port",
            "a firewall rejects",
        ),
        settle="A RST with another time-to-live than the server's SYN-ACK comes from a firewall.",
        not_it=(
            ("SPK204", 'there the connection ends after "who I am"'),
            ("SPK104", "a FIN instead of a RST"),
        ),
        engineer="RST to SYN, or RST from the server's side before the first byte.",
        source="DIAGNOSES SPK102",
    ),
    FindingSpec(
        "SPK103",
        "something-else-answered",
        Severity.CRITICAL,
        Group.CONNECTIVITY,
        title="Something else answers on this port",
        short="Login page, proxy",
        says="{service} answers in place of the Spark server.",
        of="meets another service in place of the Spark server",
        means="The first bytes from the server's side are not the 40 random bytes of a greeting. The device takes"
        " any 40 bytes for a greeting and goes on, so only a capture shows it.",
        looks="Readable text or a TLS record where the greeting belongs.",
        led="fast cyan, red",
        fix=(
            "In a Wi-Fi with a login page: have its operator let the device through without login{mac}, or use"
            " another Wi-Fi.",
            "Own server: compare address and port:",
            "  particle keys address",
        ),
        causes=("a captive portal", "the port of another service", "a proxy that speaks first"),
        settle="The bytes themselves; no key.",
        not_it=(
            ("SPK801", "there the device's side speaks first"),
            ("SPK104", "a portal that waits stays silent"),
        ),
        engineer="At least 95 % of the first 40 bytes printable, or a known first word; a nonce never is.",
        specific=1,
        source="DIAGNOSES SPK103",
    ),
    FindingSpec(
        "SPK104",
        "accepted-then-silence",
        Severity.CRITICAL,
        Group.CONNECTIVITY,
        title="The connection is accepted, then nothing comes",
        short="Silent server",
        says="{server} accepts the connection but never sends its greeting, so the login cannot begin.",
        of="gets no greeting from {server}",
        means="A Spark server speaks first, at once. Something accepts the connection and says nothing: a hung"
        " server program, another service that waits to be asked, or a proxy that answers for everyone.",
        looks="SYN, SYN-ACK, ACK, then no byte from the server before one side gives up; the device waits 20 s.",
        led="fast cyan, then red about every 20 s",
        fix=(
            "On a computer in the same network; 40 random bytes must appear at once:",
            "  nc {server} {port} | xxd",
            "Own server: restart it, and look whether it hangs. Is {port} the device port, not the web port?",
            "Someone else's Wi-Fi: finish its login page, or use another network.",
        ),
        causes=(
            "server process hangs",
            "wrong port",
            "captive portal or proxy",
            "greeting too late",
        ),
        settle="The test above, from the server's own machine and from beside the device.",
        not_it=(("SPK702", "one direction was not captured"), ("SPK103", "something did answer")),
        engineer="TCP established, 0 stream bytes from the server, ACK numbers included.",
        source="DIAGNOSES SPK104; PROTOCOL 2.4 D1",
    ),
    FindingSpec(
        "SPK105",
        "name-lookup-failed",
        Severity.MAJOR,
        Group.CONNECTIVITY,
        title="The name lookup fails, the built-in address is used",
        short="Name lookup",
        says="The device could not look up the cloud's name and dials the address built into its firmware, {server}.",
        of="cannot look up the cloud's name",
        means="The device asks for device.spark.io. When no answer comes, firmware of 2013 to 2016 dials a fixed"
        " address as its last resort. Whether that address still serves is not known.",
        looks="Questions for device.spark.io, up to 9, that stay unanswered or find nothing; then a request to"
        " connect to 54.208.229.4.",
        led="blinking cyan for longer than usual, then as SPK101; or all as usual, if the address serves",
        fix=(
            "On a computer in the same Wi-Fi, look the name up:",
            "  nslookup device.spark.io",
            "· With another DNS server: nslookup device.spark.io 9.9.9.9",
            "Only the first one fails: set a working DNS server in the router's DHCP settings, then reset the device.",
            "Both work: reset the device, and capture again from the moment it joins the Wi-Fi.",
            "Both fail: the name itself is gone. Store a server's key and address in the device, in DFU mode:",
            "  particle keys server FILE --host ADDRESS",
        ),
        causes=(
            "the DNS server that DHCP gives is wrong or down",
            "a firewall drops UDP 53",
            "a filter or a login page hides the name",
        ),
        settle="The lookup from a computer in the same Wi-Fi.",
        not_it=(
            ("SPK101", "the name is found, and the address does not answer"),
            ("SPK106", "the name is found, and the device dials something else"),
        ),
        engineer="SYN to 54.208.229.4 after NXDOMAIN, an empty answer or 2 and more questions without any; never from"
        " the address alone, which the name itself may lead to. Info when the session comes up.",
        specific=1,
        source="DIAGNOSES SPK105; PROTOCOL 1.4",
    ),
    FindingSpec(
        "SPK106",
        "wrong-address-or-port",
        Severity.MAJOR,
        Group.CONNECTIVITY,
        title="The device calls a wrong address or port",
        short="Wrong address or port",
        says="The device calls {server} on port {port}, where no Spark server is.",
        of="calls {server}, where no Spark server is",
        means="Address and port of an own server are stored in the device, beside the server key. When the server"
        " moves, the device goes on calling the old place.",
        looks="Requests to connect to a local address for which ARP finds nobody; a web server's port (80, 443,"
        " 8080) and 20 s of silence; or an address that the name lookup did not give.",
        led="3 blinks where nobody answers; fast cyan, then red, on a web server's port",
        fix=(
            "Read what the device has stored; in DFU mode (blinking yellow), on USB:",
            "  particle keys address",
            "Write server key and address together, in DFU mode:",
            "  particle keys server server.pub.pem --host ADDRESS --port 5683",
            "· Some releases of the command want --protocol tcp as well.",
            "Give the server a fixed address in the router, so that it does not move again.",
        ),
        causes=(
            "the server has moved",
            "the port of its web interface (8080) was stored",
            "DNS leads astray",
        ),
        settle="particle keys address, compared with the server's own address.",
        not_it=(
            ("SPK101", "the address is right, and something on the way drops the packets"),
            ("SPK104", "the right server hangs"),
            ("SPK102", "a machine is there and refuses"),
        ),
        engineer="Unanswered SYN to an RFC 1918 address with unanswered ARP or ICMP host unreachable; port 80, 443 or"
        " 8080 with a Spark device's behaviour; SYN to an address that no answer for device.spark.io gave. Never after"
        " a nonce.",
        specific=1,
        source="DIAGNOSES SPK106",
    ),
    FindingSpec(
        "SPK201",
        "nonce-wrong-size",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The greeting has the wrong size",
        short="Broken greeting",
        says="The server's greeting has {size} bytes instead of 40, so the login cannot begin.",
        of="gets a broken greeting",
        means="The server does not speak this protocol correctly, or its data was cut on the way.",
        looks="1 to 39 bytes from the server and then nothing, or more than 40 before the device has answered.",
        led="fast cyan, red after 20 s",
        fix=(
            "Own server: check changes to its code, and proxies in front of it that add a line of their own.",
            "  nc {server} {port} | xxd | head",
        ),
        causes=("changed server code", "a proxy that adds bytes", "a connection that breaks"),
        settle="The same capture on the server itself.",
        not_it=(("SPK103", "text instead of random bytes"), ("SPK703", "the capture cut the packet")),
        engineer="M1 is exactly 40 bytes; two segments that add up to 40 are fine.",
        source="DIAGNOSES SPK201",
    ),
    FindingSpec(
        "SPK202",
        "nonce-not-answered",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device does not answer the greeting",
        short="Device that does not answer",
        says="The server greets the device; the device never says who it is.",
        of="does not answer the server's greeting",
        means="The greeting arrived, and the device has nothing to send: it hangs, or it cannot use the server key"
        " that is stored in it.",
        looks="40 bytes from the server, acknowledged; no byte from the device for 20 s or until one side closes.",
        led="fast cyan, frozen",
        fix=(
            DFU,
            "  particle keys server",
            "It writes the cloud's own key back. Own server, instead:",
            "  particle keys server FILE --host ADDRESS",
            "Press reset. Still silent: start in safe mode, to leave the program on the device out of it.",
        ),
        causes=("server-key slot blank or unusable (SPK307)", "program on the device blocks", "Wi-Fi loss"),
        settle="A dump of the device's server-key slot: sparkshark keys FILE",
        not_it=(("SPK702", "the device's direction is not in the capture"),),
        engineer="M1 delivered, no M2; the server gives up after 30 s (old) or 10 s (Brewskey).",
        source="DIAGNOSES SPK202; PROTOCOL 2.6",
    ),
    FindingSpec(
        "SPK203",
        "identity-split-or-wrong-size",
        Severity.MAJOR,
        Group.HANDSHAKE,
        title='"Who I am" comes in pieces, or in the wrong size',
        short='"Who I am" in pieces',
        says='The device\'s "who I am" {how}, and the server hangs up.',
        of='sends "who I am" in pieces, and the server hangs up',
        means="Both open servers read once and decrypt what has arrived by then. When the 256 bytes come in two"
        " packets, the server may see only the first and hang up, although every key is right.",
        looks="The 256 bytes in several packets, and the server closes within 1 s without a reply; or another size.",
        led="fast cyan with red",
        fix=(
            "Look for a small MTU, MSS clamping or a tunnel between device and server: 256 bytes must pass in one"
            " packet.",
            "Own server: collect 256 bytes before decrypting.",
            "It is a race: some attempts get through.",
        ),
        causes=(
            "small MTU or MSS",
            "a relay that cuts packets",
            "a server key of another size in the device",
        ),
        settle="--server-key with the server's private key: 256 bytes that open prove that the cut is the cause.",
        not_it=(
            ("SPK703", "the capture lacks a packet"),
            ("SPK302", "wrong server key: the same, but in one packet"),
        ),
        engineer="M2 over more than one segment, FIN or RST from the server within 1 s, no M3.",
        specific=1,
        source="DIAGNOSES SPK203; PROTOCOL 2.5, 9.1",
    ),
    FindingSpec(
        "SPK204",
        "refused-after-identity",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title='The server hangs up after "who I am"',
        short="Wrong server key, unknown device",
        says="The server reads the device's \"who I am\" and hangs up: the device has another server's key, or the"
        " server does not know this device.",
        of='is refused by the server after "who I am"',
        means="The greeting passed, the device answered, and the server refused the answer. Either it could not"
        " open it, or it opened it and has no (or another) key on file for this device.",
        looks="40 and 256 bytes, then the server closes within 1 s without sending 384.",
        led="fast cyan with a short red burst",
        fix=(
            'Find out which of the two it is. Own server: its log says "decryption failed" (server key) or'
            ' "couldn\'t find key for core" (device).',
            "Server key. In DFU mode on USB:",
            "  particle keys server",
            "  (own server: particle keys server FILE --host ADDRESS)",
            "Device not known. In DFU mode on USB:",
            DOCTOR,
            DOCTOR_SENDS,
        ),
        causes=(
            "SPK302 the device has another server's key",
            "SPK304 the device is not on file, or with another key",
            "SPK308 the server program is too new or too old",
            "SPK203 the answer came in pieces",
        ),
        settle="--server-key with the server's private key settles it; the public half can exclude a key.",
        not_it=(("SPK102", "closed before any data"), ("SPK206", "384 bytes were sent")),
        engineer="M2 complete, FIN or RST by the server, no byte of M3.",
        source="DIAGNOSES SPK204; PROTOCOL 2.5",
    ),
    FindingSpec(
        "SPK205",
        "reply-wrong-size",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The server's reply has the wrong size",
        short="Key of the wrong size",
        says="The server's reply has {size} bytes instead of 384: a key of the wrong size is on file.",
        of="gets a reply of the wrong size",
        means="The reply is one block as large as the device's key and one as large as the server's. Only 128 + 256"
        " fits this protocol.",
        looks="Another number of bytes than 384 from the server after the device's 256.",
        led="red (too short), orange or magenta (too long)",
        fix=(
            "Own server: its key must have 2048 bits, the device's 1024 (RSA):",
            "  openssl rsa -pubin -in DEVICE_ID.pub.pem -text -noout",
            "Replace the key that is not. In DFU mode on USB:",
            DOCTOR,
        ),
        causes=(
            "256 bytes: the server's key has 1024 bits",
            "512: the device is on file with a 2048-bit key",
            "128, or any other number: the signature is missing",
        ),
        settle="The public key files show their sizes: sparkshark keys FILE",
        not_it=(("SPK703", "the capture lacks a packet"),),
        engineer="M3 = device modulus + server modulus in bytes.",
        source="DIAGNOSES SPK205; PROTOCOL 3.4",
    ),
    FindingSpec(
        "SPK206",
        "silent-after-reply",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device goes silent after the server's reply",
        short="Reply that cannot be used",
        says="The server accepts the device, but the device cannot use the server's reply, so the login never"
        " finishes.",
        of="cannot use the server's reply",
        means="The server locked its reply with the key on file for this device. The device cannot open it, or does"
        " not accept it. The network, the server's key and the device's ID are right, or no reply would have come.",
        looks="40, 256 and 384 bytes, then no message from the device within 5 s.",
        led="orange: cannot open it · magenta: opened, signature wrong · red: a 20 s limit ran out. Colours are"
        " easily confused; do not rely on one.",
        fix=(
            "Look at the LED between the cyan flashes: orange agrees, magenta would point to SPK303.",
            DFU,
            DOCTOR,
            DOCTOR_SENDS,
            OWN_SERVER,
        ),
        causes=("SPK301 keys are no pair (usual)", "SPK306 unlucky key", "SPK303 signature"),
        settle="--device-key FILE tells 301 from 306; with --server-key FILE also 303.",
        not_it=(
            ("SPK702", "one direction is missing"),
            ("SPK505", "the device never acknowledges the reply: Wi-Fi loss"),
            ("SPK209", "the hello comes, but late"),
        ),
        engineer="M3 = 128 bytes RSAES-PKCS1-v1_5 for the device + 256 bytes signature; no M4.",
        source="DIAGNOSES SPK206; PROTOCOL 2.4 D3, D4",
    ),
    FindingSpec(
        "SPK207",
        "dead-key-frame",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="A message under a key that nobody agreed on",
        short="Dead-key message",
        says="The server accepts the device, but the device cannot use the server's reply, so the login never"
        " finishes.",
        of="cannot use the server's reply",
        means="Firmware of 2014 goes on talking after a failed login, with whatever key is in its memory: all zero"
        " after power-up, else that of the session before. Seeing one proves that the login failed.",
        looks="An 18-byte frame that opens under the all-zero key (or the previous session's), after the 384 bytes"
        ' or in the place of "who I am".',
        led="as SPK206",
        fix=(
            "Look at the LED between the cyan flashes: orange agrees, magenta would point to SPK303.",
            DFU,
            DOCTOR,
            DOCTOR_SENDS,
            OWN_SERVER,
        ),
        causes=("SPK301 keys are no pair (usual)", "SPK306 unlucky key", "SPK303 signature"),
        settle="--device-key FILE tells 301 from 306; with --server-key FILE also 303.",
        not_it=(("SPK001", "a real hello has 18 bytes too, but the server answers it"),),
        engineer="AES-128-CBC under key 0 (or the earlier session's), IV chain continued across reconnects.",
        specific=2,
        source="DIAGNOSES 0.4, SPK207; PROTOCOL 9.2",
    ),
    FindingSpec(
        "SPK208",
        "hello-not-answered",
        Severity.CRITICAL,
        Group.HANDSHAKE,
        title="The device's hello is not answered",
        short="Server that ignores the hello",
        says="The device logs in and says hello, but the server does not say hello back.",
        of="says hello and gets no hello back",
        means="The device has just checked the server's reply, so the keys are right. The server could not read the"
        " hello, lost it, or waits for something else.",
        looks="40, 256, 384, then 18 or 34 bytes from the device, and no message from the server.",
        led="fast cyan, then red",
        fix=(
            'Own server: look in its log for "failed to parse hello", "recovering from early data" or'
            ' "Invalid CoAP version", and update it.',
            "Particle cloud: try again later; the device is fine.",
        ),
        causes=("server loses a message that comes too early", "server waits for its database", "server bug"),
        settle="--device-key FILE: a hello that opens proves that the fault is at the server.",
        not_it=(("SPK207", "a ping under a dead key has 18 bytes too"),),
        engineer="M4 seen, no M5; the device closes after 2 s (to 0.7) or 4 s (0.8+).",
        specific=1,
        source="DIAGNOSES SPK208; PROTOCOL 2.4 D5",
    ),
    FindingSpec(
        "SPK209",
        "slow-handshake",
        Severity.MINOR,
        Group.HANDSHAKE,
        title="The login works, but slowly",
        short="Slow login",
        says="The login takes {total}: {step}.",
        of="logs in slowly",
        means="One step of the login takes so long that a timer may cut it: some servers give up after 10 s, the"
        " device after 20 s a step.",
        looks="More than 5 s for the device's step, 2 s for the server's, or 8 s in all.",
        led="long fast cyan, sometimes no success",
        fix=("Improve the Wi-Fi signal at the device, and look at the server's load.",),
        causes=("weak signal", "a busy server"),
        settle="A capture on the server shows which side waits.",
        not_it=(("SPK505", "repeated packets inside the step: the network, not the device"),),
        engineer="Times between M1, M2, M3 and M4.",
        source="DIAGNOSES SPK209",
    ),
    FindingSpec(
        "SPK301",
        "device-key-mismatch",
        Severity.CRITICAL,
        Group.KEYS,
        title="The device's key and the server's copy are no pair",
        short="Wrong device key",
        says="The server locks its reply with a key that is not this device's key.",
        of="cannot use the server's reply: it is locked with another key",
        means="Device and server each have a key, but not a matching pair.",
        looks="As SPK206; the 128 bytes do not open with the device's private key.",
        led="orange",
        fix=(DFU, DOCTOR, DOCTOR_SENDS),
        causes=("keys doctor that could not send the new key", "a restored or swapped key file"),
        settle="--device-key FILE",
        not_it=(
            ("SPK306", "the pair is right, but the firmware misreads it"),
            ("SPK303", "it opens; the signature fails"),
        ),
        engineer="No PKCS#1 block under the device's private key.",
        specific=3,
        source="DIAGNOSES SPK301; PROTOCOL 3.4",
    ),
    FindingSpec(
        "SPK302",
        "wrong-server-key-on-device",
        Severity.CRITICAL,
        Group.KEYS,
        title="The device has another server's key",
        short="Wrong server key",
        says='The device locks "who I am" for another server.',
        of='locks "who I am" for another server',
        means="The server key stored in the device is not this server's.",
        looks="As SPK204, on every attempt; the 256 bytes do not open with the server's private key.",
        led="fast cyan with a short red burst",
        fix=(
            "In DFU mode on USB, own server:",
            "  particle keys server default_key.pub.pem --host ADDRESS",
            "Back to the Particle cloud:",
            "  particle keys server",
        ),
        causes=("the device was used with another server", "the server's key was made anew"),
        settle="--server-key with the server's private key, or a dump of the device's slot.",
        not_it=(
            ("SPK304", "the server can open it, but does not know the device"),
            ("SPK308", "all devices fail"),
        ),
        engineer="No PKCS#1 block under the server's private key, or a number not below the modulus.",
        specific=3,
        source="DIAGNOSES SPK302; PROTOCOL 3.3",
    ),
    FindingSpec(
        "SPK303",
        "bad-server-signature",
        Severity.CRITICAL,
        Group.KEYS,
        title="The signature on the reply is another server's",
        short="Impostor server",
        says="Another server answers: its reply is not signed with the key that the device trusts.",
        of="is answered by another server",
        means="Someone who has the device's public key, but not the server's private key, answers. Usually the"
        " server's key was made anew; in theory an interceptor.",
        looks="As SPK206; the device key opens the 128 bytes, the signature does not verify.",
        led="magenta",
        fix=(
            "Restore the server's old key file, or write the new one to the device. In DFU mode on USB:",
            "  particle keys server FILE --host ADDRESS",
        ),
        causes=("server key made anew", "a proxy that ends the connection", "an interceptor"),
        settle="--server-key FILE (public is enough) and --device-key FILE",
        not_it=(("SPK301", "the device key does not open the reply"),),
        engineer="The 256 bytes are no type-1 block under the server's public key, or the HMAC differs.",
        specific=4,
        source="DIAGNOSES SPK303; PROTOCOL 2.3",
    ),
    FindingSpec(
        "SPK304",
        "unknown-device",
        Severity.CRITICAL,
        Group.KEYS,
        title="The server does not know this device, or not this key",
        short="Unknown device",
        says='The server can read "who I am", but does not know this device, or knows it with another key.',
        of="is not known to the server",
        means="The server opened the 256 bytes and found no (or another) key on file.",
        looks="As SPK204; the 256 bytes open with the server's private key and carry the right greeting.",
        led="fast cyan with a short red burst",
        fix=(
            "Register the device's public key:",
            "  particle keys send DEVICE_ID DEVICE_ID.pub.pem",
            "Own server: put DEVICE_ID.pub.pem into its key folder.",
        ),
        causes=("new or replaced device", "lost key folder", "key changed on the device"),
        settle="--server-key with the server's private key gives the device's ID.",
        not_it=(("SPK302", "the server cannot open it"),),
        engineer="M2 opens, nonce equal, closed all the same.",
        specific=3,
        source="DIAGNOSES SPK304",
    ),
    FindingSpec(
        "SPK305",
        "elliptic-key-in-rsa-slot",
        Severity.CRITICAL,
        Group.KEYS,
        title="The device's key slot holds no RSA key",
        short="Key of another kind",
        says="The device holds a key of another kind, or none, where its RSA key belongs.",
        of="holds no usable RSA key",
        means='The device copies bytes from a fixed place of its key slot into "who I am". What it copied is no'
        " RSA key: usually an elliptic-curve key of the newer protocol, or an erased slot.",
        looks="As SPK204 or SPK206; the key that the device offers is no RSA number.",
        led="red or orange",
        fix=(
            "Make an RSA key of 1024 bits and write it. In DFU mode on USB:",
            "  particle keys new --protocol tcp",
            "  particle keys load FILE",
            "  particle keys send DEVICE_ID FILE.pub.pem",
        ),
        causes=("keys made for the UDP protocol", "an erased or overwritten slot"),
        settle="--server-key with the server's private key shows what the device offers; a dump of the slot too.",
        not_it=(("SPK304", "a usable key, but not the one on file"),),
        engineer="Bytes 11-138 of the slot are not a 1024-bit modulus.",
        specific=4,
        source="DIAGNOSES SPK305; PROTOCOL 2.2",
    ),
    FindingSpec(
        "SPK306",
        "unlucky-key",
        Severity.CRITICAL,
        Group.KEYS,
        title="A correct key that the firmware cannot read",
        short="Unlucky key",
        says="The device's key is correct, but its firmware misreads it. About 1 key in 100 is like that.",
        of="has a key that its firmware misreads",
        means="The firmware does not read the lengths in the key file; one number that is a byte shorter than usual"
        " puts everything after it out of step.",
        looks="As SPK206, although keys doctor succeeded.",
        led="orange",
        fix=("Make another key. In DFU mode on USB:", DOCTOR, DOCTOR_SENDS),
        causes=("chance",),
        settle="--device-key FILE; no capture is needed: sparkshark keys FILE",
        not_it=(("SPK301", "there the two keys differ"),),
        engineer="One of D, P, Q, dP, dQ, qInv is short; the walk of PROTOCOL 8.4 loses step.",
        specific=4,
        source="DIAGNOSES SPK306; PROTOCOL 8.4",
    ),
    FindingSpec(
        "SPK307",
        "key-file-mistaken",
        Severity.INFO,
        Group.KEYS,
        title="A key file is not what its name says",
        short="Mistaken key file",
        says="A key file is not what its name says.",
        of="was given a mistaken key file",
        means="Key files are told by content: a flash dump, a certificate, a saved error page or the wrong half of a"
        " pair may stand under any name.",
        looks="No capture is needed: sparkshark keys FILE names each file.",
        fix=(
            "See what each file is:",
            "  sparkshark keys FILE...",
            "Core, in DFU mode:",
            "  dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U device.der",
            "Photon, in DFU mode:",
            "  dfu-util -d 2b04:d006 -a 1 -s 34:612 -U device.der",
        ),
        causes=("a dump without a length", "a browser that renamed a download", "halves mixed up"),
        settle="sparkshark keys FILE",
        engineer="Content against role: PKCS#1, PKCS#8, SPKI, X.509, EC, slot image, flash image.",
        source="DIAGNOSES SPK307; PROTOCOL 8",
    ),
    FindingSpec(
        "SPK308",
        "server-software-refuses",
        Severity.CRITICAL,
        Group.KEYS,
        title="The server's program refuses such messages",
        short="Server program too new or too old",
        says="The keys are right; the server's program can no longer open such messages.",
        of='is refused by a server program that cannot open its "who I am"',
        means="New Node.js versions refuse this kind of encryption, or answer a wrong key with random bytes.",
        looks="As SPK204, for every device, from one moment on.",
        led="fast cyan with a short red burst",
        fix=("Update the server, or start it on Node 18 to 21 with --security-revert=CVE-2023-46809.",),
        causes=("Node or OpenSSL upgrade",),
        settle="--server-key with the server's private key: it opens here.",
        not_it=(("SPK302", "it does not open here either"),),
        engineer="M2 opens with the right nonce; the server closes all the same.",
        specific=2,
        source="DIAGNOSES SPK308",
    ),
    FindingSpec(
        "SPK401",
        "misread-as-coap",
        Severity.INFO,
        Group.MISPARSE,
        title='"Malformed CoAP" is a red herring',
        short="CoAP error codes",
        says="The CoAP codes that Wireshark shows are random bytes read as CoAP. Ignore them.",
        of="is shown as CoAP by Wireshark",
        means="Wireshark takes TCP port 5683 for CoAP. The greeting and the locked blocks are random numbers, and"
        " every message begins with its length: none of it is CoAP before it is decrypted.",
        looks='"Unknown 16" again and again, and some random code for the greeting.',
        fix=("tshark without the wrong reading:", "  tshark --disable-protocol coap -r FILE"),
        settle="sparkshark explain 'ROW TEXT' CAPTURE shows the bytes that made a row.",
        not_it=(("SPK801", "genuine CoAP over TCP parses to the end, in both directions"),),
        engineer="RFC 8323 framing applied to M1-M3 and to the 2-byte length prefix.",
        source="DIAGNOSES SPK401; PROTOCOL 2.1",
    ),
    FindingSpec(
        "SPK501",
        "framing-lost",
        Severity.MAJOR,
        Group.SESSION,
        title="The two sides no longer agree where a message begins",
        short="Lost framing",
        says="From packet {packet} on the bytes are no messages of this protocol any more.",
        of="loses its place in the messages",
        means="A message's length field holds a value that no message can have. One side lost its place, usually"
        " a server bug.",
        looks="A length of 0, no multiple of 16, or over 1,024, with no hole in the capture before it.",
        led="breathing cyan, then fast cyan",
        fix=("Update the server; the device reconnects by itself.",),
        settle="--device-key FILE shows the last message that was right.",
        not_it=(("SPK703", "a hole in the capture"),),
        engineer="be16 out of range where a frame should begin.",
        source="DIAGNOSES SPK501; PROTOCOL 4.3",
    ),
    FindingSpec(
        "SPK502",
        "message-number-jumped",
        Severity.MAJOR,
        Group.SESSION,
        title="A message number jumps, and the server hangs up",
        short="Jump in the message numbers",
        says="A message number of the device jumps (packet {packet}), and the server hangs up on it.",
        of="leaves out a message number, and the server hangs up",
        means="The device numbers its messages, and both open servers count along. When a number is not the next one, a"
        " message went missing between the software of the two, and the server ends the connection.",
        looks="In a working session the server closes within milliseconds of a message from the device. Only a key"
        " shows the numbers.",
        led="breathing cyan, then fast cyan for a moment",
        fix=(
            'Own server: look for "got counter" or "Bad Counter" in its log at that moment, and update it.',
            "Update the firmware of the device. It reconnects by itself.",
        ),
        causes=(
            "a time request that overtakes the hello",
            "the server lost a message (SPK501)",
            "two parts of a program send at the same time",
        ),
        settle="The server's log at that moment.",
        not_it=(
            ("SPK501", "there a message does not open at all"),
            ("SPK509", "there the device hangs up, not the server"),
            ("SPK703", "the capture lacks the message in between"),
        ),
        engineer="Non-ACK message ids rise by 1 from the hello's, modulo 65536; pings are counted, not compared.",
        source="DIAGNOSES SPK502; PROTOCOL 4.2",
    ),
    FindingSpec(
        "SPK503",
        "ping-not-answered",
        Severity.MAJOR,
        Group.SESSION,
        title="A ping is not answered",
        short="Unanswered ping",
        says="The device works until the server stops answering: a ping gets no answer, so the device hangs up.",
        of="hangs up because a ping is not answered",
        means="The device pings after 15 s without a word from the server and waits 10 s. The server's computer"
        " still confirms the packet, so its program hangs.",
        looks="18 bytes from the device after 15 s of silence, acknowledged by TCP, no message back within 10 s. With a key"
        " also: any request that one side makes and the other never answers.",
        led="breathing cyan, then fast cyan",
        fix=(
            "Own server: look at its load and its log at that moment, and restart it.",
            "Particle cloud: nothing on the device is wrong; it reconnects.",
        ),
        causes=("server program hangs", "server overloaded", "a function of the device's program that takes too long"),
        settle="--device-key FILE shows that it is a ping, and what came before it.",
        not_it=(("SPK505", "the ping is not even acknowledged: the path is dead"),),
        engineer="CON 0.00 without ACK for 10 s.",
        source="DIAGNOSES SPK503; PROTOCOL 6",
    ),
    FindingSpec(
        "SPK504",
        "device-too-busy",
        Severity.MAJOR,
        Group.SESSION,
        title="The device goes quiet, and the server gives up on it",
        short="Busy program on the device",
        says="The device says nothing for {quiet}, not even a ping, and the server hangs up. The program on the device"
        " keeps it too busy to talk to the cloud.",
        of="goes quiet until the server hangs up",
        means="A device that works pings after 15 s without a word from the server. This one does not, though its network"
        " still confirms packets: its program leaves the cloud no time. The community server allows 31 s of it.",
        looks="The last message of the device, then nothing from it but acknowledgements, then a close by the server after"
        " the same time on each connection; sessions often last 15 + 31 = 46 s.",
        led="breathing cyan or green, sometimes frozen",
        fix=(
            "Start in safe mode, to leave the program on the device out of it: the connection then holds.",
            "Keep loop() short: no delay() and no waiting for more than 10 s. In longer work, call:",
            "  Particle.process();",
            "Or let the cloud run beside the program, with this line above setup():",
            "  SYSTEM_THREAD(ENABLED);",
        ),
        causes=("a long loop() or delay()", "waiting for a sensor or the serial port", "Wi-Fi in manual mode"),
        settle="Safe mode: if the connection holds there, it is the program. --device-key FILE shows the last message"
        " before the silence.",
        not_it=(
            ("SPK506", "there the device goes on sending, and nothing is acknowledged"),
            ("SPK505", "there not even the device's network answers any more"),
            ("SPK508", "there the device begins anew instead of staying quiet"),
        ),
        engineer="Server FIN at a fixed gap after the last device frame; device ACKs keep-alive probes or the FIN.",
        source="DIAGNOSES SPK504; PROTOCOL 6",
    ),
    FindingSpec(
        "SPK505",
        "packets-lost",
        Severity.MAJOR,
        Group.SESSION,
        title="Packets get lost on the way",
        short="Bad radio link",
        says="Packets get lost on the way, mostly those from the {sender}.",
        of="loses packets",
        means="The same data is sent again and again. A session survives much of it; it ends when nothing arrives"
        " any more.",
        looks="Repeated data without an answer.",
        led="breathing cyan with dropouts",
        fix=("Move the device nearer to the access point, try another channel and another power supply.",),
        causes=("weak signal", "power supply", "busy channel"),
        settle="A second capture at the other end shows on which side of it packets vanish.",
        not_it=(
            ("SPK503", "the packet is acknowledged, its message not answered"),
            ("SPK704", "copies made by the capture"),
        ),
        engineer="Retransmitted segments; unacknowledged data at the end.",
        source="DIAGNOSES SPK505",
    ),
    FindingSpec(
        "SPK506",
        "connection-forgotten",
        Severity.MAJOR,
        Group.SESSION,
        title="A router forgets the quiet connection",
        short="Forgotten by a router",
        says="After {quiet} of silence nothing of the device gets through any more: a router or firewall on the way has"
        " dropped the quiet connection.",
        of="is cut off after each silence",
        means="Routers and firewalls keep a list of connections, and strike out the quiet ones. Devices ping after 15 s, so"
        " one that forgets sooner cuts each session off, and neither end is told.",
        looks="A silence, then a message of the device that is sent again and again without any answer, or a reset that"
        " does not come from the server; the same on each connection, after the same silence.",
        led="breathing cyan for up to 25 s although cut off, then fast cyan",
        fix=(
            "Raise the time that the router or firewall allows for a quiet TCP connection: 60 s or more.",
            "Nothing to set there: try another router, or a phone hotspot. If the connection holds, it was the router.",
            "Switch off power saving in the Wi-Fi access point.",
        ),
        causes=("NAT or firewall time-out below 15 s", "power saving in the Wi-Fi"),
        settle="A second capture beside the server: the repeated message does not arrive there.",
        not_it=(
            ("SPK503", "there the message is acknowledged, so it arrived"),
            ("SPK504", "there the device itself says nothing"),
            ("SPK505", "there packets get lost at any time, not after a silence only"),
        ),
        engineer="Retransmissions without any ACK, or RST with another TTL than the SYN-ACK's, behind mutual idle.",
        specific=1,
        source="DIAGNOSES SPK506; PROTOCOL 6",
    ),
    FindingSpec(
        "SPK507",
        "same-device-twice",
        Severity.MAJOR,
        Group.SESSION,
        title="Two devices claim to be the same one",
        short="Same device ID twice",
        says="Two devices claim to be the same one: {here} and {there}. Each login of one ends the session of the other.",
        of="claims to be the same device as {there}",
        means="The server knows a device by its ID and keeps one session for it. When two log in with one ID, each login"
        " throws the other out.",
        looks="A login from one address, and within 1 s the server closes the session of another address; then the same the"
        " other way round. In the device's own network: one ID announced from two addresses.",
        led="both: breathing cyan and fast cyan in turn",
        fix=(
            "Find the second one by its address, and read the ID of each on USB:",
            "  particle serial identify",
            "Take one of the two off. New keys do not change an ID.",
        ),
        causes=("flash contents copied from one device to another", "an emulator that uses a real device's ID"),
        settle="--server-key FILE with the server's private key shows the ID in each login.",
        not_it=(
            ("SPK504", "there the server closes after a silence, not at another login"),
            ("SPK508", "one device that comes back: the same address, and its old session never speaks again"),
        ),
        engineer="Equal IDs in M2 of sessions that live at the same time at two addresses.",
        specific=1,
        source="DIAGNOSES SPK507; PROTOCOL 9.14",
    ),
    FindingSpec(
        "SPK508",
        "reconnects",
        Severity.MAJOR,
        Group.SESSION,
        title="The device connects again and again",
        short="Restarts",
        says="The device restarts, or loses its link, and connects anew.",
        of="comes back without having closed its connection",
        means="A connection that works is left without being closed, and a new one begins: the device restarted, lost"
        " power, or lost its Wi-Fi.",
        looks="No FIN and no RST, then a SYN from another port of the same device.",
        led="the start-up colours again",
        fix=(
            "Look at the power supply and the Wi-Fi signal.",
            "Start in safe mode, to leave the program on the device out of it.",
        ),
        causes=("power supply", "program crashes", "Wi-Fi loss"),
        settle="The LED at that moment: a restart shows the start-up colours.",
        not_it=(("SPK503", "there the device closes after an unanswered ping"),),
        engineer="Established session without FIN or RST, followed by a new SYN.",
        source="DIAGNOSES SPK508",
    ),
    FindingSpec(
        "SPK509",
        "hangs-up-on-message",
        Severity.MAJOR,
        Group.SESSION,
        title="One side hangs up on a certain message",
        short="Message that is not borne",
        says="Each time the server sends {message}, the device hangs up.",
        of="hangs up when the server sends a certain message",
        means="Firmware of some years takes a refusal from the server for an error of the connection, and the old server"
        " refuses each event of a program. They log in, exchange one event, and begin anew.",
        looks="In a working session the device closes within milliseconds of a message from the server.",
        led="breathing cyan, then fast cyan, again and again",
        fix=(
            "Own server: let it acknowledge events with an empty acknowledgement, or use the community server.",
            "Or update the firmware to 0.8 or newer (Photon), or publish no events.",
        ),
        causes=("firmware 0.4.9 to 0.7 with the old server", "an argument of 64 bytes or more to a Core of 2014"),
        settle="--device-key FILE names the message.",
        not_it=(("SPK503", "there nothing comes from the server before the device closes"),),
        engineer="4.xx to an event, FIN by firmware that treats unknown codes as errors; PROTOCOL 5.2.",
        source="DIAGNOSES SPK509; PROTOCOL 5.4.6, 5.4.10",
    ),
    FindingSpec(
        "SPK601",
        "update-stalled",
        Severity.MAJOR,
        Group.UPDATE,
        title="An update stops in the middle",
        short="Stalled update",
        says="A firmware update stops after {chunks} chunks.",
        of="stops in the middle of an update",
        means="The server sends chunks of a new firmware and the device stops answering.",
        looks="A run of equal frames of 274, 290, 530 or 546 bytes, then nothing for 12 s. An update that never begins:"
        " three frames of 34 bytes from the server, 6 s apart, and no answer.",
        led="magenta, solid",
        fix=("Press reset, and update again near the access point, or over USB.",),
        settle="--device-key FILE shows which chunk, and the percentage.",
        not_it=(("SPK602", "the device still asks for a chunk"),),
        engineer="No device frame after the last chunk.",
        source="DIAGNOSES SPK601",
    ),
    FindingSpec(
        "SPK602",
        "chunks-missed",
        Severity.MAJOR,
        Group.UPDATE,
        title="Parts of an update are asked for again and again",
        short="Missed chunks",
        says="A firmware update fails: the device asks for a missing part again and again, and the server no longer"
        " sends it.",
        of="asks for a part of an update again and again",
        means="The device reports a chunk as missing every 3 s. The servers give up after some of these reports.",
        looks="After a run of equal chunk frames: 18 bytes from the device every 3 s, and no chunk any more.",
        led="magenta, then back to the old firmware",
        fix=(
            "Press reset, and update again near the access point, or over USB.",
            "Own server: it gives up after 10 reports (old) or more than 10 open chunks (Brewskey).",
        ),
        causes=("radio loss", "flash fault (always the same chunk)", "server gave up"),
        settle="--device-key FILE shows which chunks, and whether their checksums were right.",
        not_it=(("SPK601", "the device sends nothing at all"),),
        engineer="ChunkMissed at the 3 s timer after the last Chunk.",
        specific=1,
        source="DIAGNOSES SPK602; PROTOCOL 5.5",
    ),
    FindingSpec(
        "SPK603",
        "update-too-slow",
        Severity.MAJOR,
        Group.UPDATE,
        title="An update is too slow for the server",
        short="Update over its time limit",
        says="A firmware update goes on steadily but too slowly: the server allows {limit} s for it and stops in the"
        " middle.",
        of="is too slow for an update",
        means="No part of it is lost; there are too many for the time. The community server allows 60 s for a whole update,"
        " the old one 600 s.",
        looks="Equal frames of 274, 290, 530 or 546 bytes at an even pace, each answered, until the server stops or hangs up"
        " a full 60 s or 600 s after it began.",
        led="magenta until the end, then breathing cyan",
        fix=(
            "Update near the access point, or over USB:",
            "  particle flash --usb FILE",
            "Own server: raise its limit, or use larger chunks and fast updates.",
            "No such frames in a capture of an update that fails: the delay lies before the device, in compiling or in the"
            " upload to the server.",
        ),
        causes=("slow link with a long way to the server", "small chunks", "a busy device"),
        settle="--device-key FILE shows how large the update is, and how long it would have taken.",
        not_it=(
            ("SPK601", "there nothing goes on any more before the limit is over"),
            ("SPK602", "there the same parts are asked for again and again"),
        ),
        engineer="Chunk rate steady, last chunk within a few intervals of begin + 60 s or 600 s, no UpdateDone.",
        specific=2,
        source="DIAGNOSES SPK603; PROTOCOL 5.5",
    ),
    FindingSpec(
        "SPK701",
        "midway",
        Severity.INFO,
        Group.CAPTURE,
        title="The capture begins in mid-connection",
        short="Capture begun midway",
        says="The device was already connected when the capture began. The login is not in the file, so it cannot"
        " be judged.",
        of="was already connected when the capture began",
        means="There is no request to connect. The session key travels only in the login, so no RSA key can open"
        " what follows.",
        looks="No SYN; the first bytes are frames.",
        fix=("Start the capture first, then press reset on the device.",),
        settle="A capture with the login in it, or --session-key.",
        engineer="No SYN and no M3.",
        source="DIAGNOSES SPK701; PROTOCOL 4.5",
    ),
    FindingSpec(
        "SPK702",
        "one-way",
        Severity.INFO,
        Group.CAPTURE,
        title="Only one direction was captured",
        short="One-way capture",
        says="Only packets from the {sender} are in the capture; who was silent cannot be told.",
        of="was captured in one direction only",
        means="The other direction took another way, or was filtered out. What it sent is known only by size, from"
        " the numbers that acknowledge it.",
        looks="Acknowledgements of data that is not in the capture.",
        fix=("Capture both directions: on the router, or with both directions mirrored.",),
        settle="A capture of both directions.",
        engineer="ACK advances over unseen segments; no packet of the other sender.",
        source="DIAGNOSES SPK702",
    ),
    FindingSpec(
        "SPK703",
        "bytes-missing",
        Severity.INFO,
        Group.CAPTURE,
        title="Bytes are missing from the capture",
        short="Hole in the capture",
        says="The capture misses bytes that were on the wire.",
        of="was captured with holes",
        means="Packets were not captured, or only their first bytes. The connection itself need not have lost them.",
        looks="Sequence numbers that were acknowledged but never captured; captured length below the original.",
        fix=("Complete next time:", "  tcpdump -s 0 -B 8192 -w FILE port 5683"),
        settle="A complete capture.",
        not_it=(("SPK505", "lost on the network: sent again, and then there"),),
        engineer="Stream holes, snaplen cuts, damaged records.",
        source="DIAGNOSES SPK703; PROTOCOL 4.5",
    ),
    FindingSpec(
        "SPK704",
        "copies-and-checksums",
        Severity.INFO,
        Group.CAPTURE,
        title="The capture holds packets twice, or with wrong checksums",
        short="Capture artefacts",
        says="The capture holds {what}; this was taken into account.",
        of="was captured with copies or wrong checksums",
        means='Mirror ports and "any" interfaces record a packet twice; a computer that captures its own packets'
        " sees their checksums before the network card has filled them in.",
        looks="The same packet again within a millisecond, or on another interface.",
        engineer="Same IP ID, sequence, flags and length; checksum wrong for one sender only.",
        source="DIAGNOSES SPK704",
    ),
    FindingSpec(
        "SPK705",
        "vantage-point",
        Severity.INFO,
        Group.CAPTURE,
        title="What can be seen from where the capture was made",
        short="Wrong place to capture",
        says="{what}",
        of="cannot be seen from here",
        means="Where the capture is made decides what can be seen.",
        looks="Encrypted Wi-Fi frames, or only broadcasts.",
        fix=("Capture on the router or on the server's computer.",),
        engineer="Monitor mode without keys shows no IP.",
        source="DIAGNOSES SPK705",
    ),
    FindingSpec(
        "SPK706",
        "no-spark-traffic",
        Severity.INFO,
        Group.CAPTURE,
        title="No Spark traffic in the capture",
        short="No Spark traffic",
        says="None of the {packets} belongs to a Spark connection.",
        of="is not in the capture",
        means="No TCP conversation on port 5683 (or the ports given) is in the capture.",
        looks="Other traffic only.",
        fix=(
            "Capture where the device's packets pass: on the router or on the server. Another computer in the"
            " Wi-Fi does not see them.",
            "Capture, reset the device, wait 60 s. Other port: --port N",
        ),
        engineer="No segment to or from the wanted ports.",
        source="DIAGNOSES SPK706",
    ),
    FindingSpec(
        "SPK801",
        "other-protocol",
        Severity.INFO,
        Group.NOT_SPARK,
        title="Another protocol on this port",
        short="Another protocol",
        says="{what}",
        of="speaks another protocol",
        means="The port number alone makes no Spark connection. Here the other side speaks first, or the bytes"
        " are those of another protocol.",
        looks="The connecting side speaks first: genuine CoAP over TCP, TLS, HTTP.",
        fix=("Nothing here: this is no Spark device's connection. A Spark server on another port: add --port N.",),
        not_it=(("SPK701", "a capture begun midway"),),
        engineer="RFC 8323 messages that parse to their exact ends, a CSM (7.01) first; or a TLS ClientHello.",
        source="DIAGNOSES SPK801",
    ),
)

FINDINGS: Final = {spec.code: spec for spec in _SPECS}
"""All findings by code."""
ON_THE_COMMAND_LINE: Final = ("SPK105", "SPK106", "SPK502", "SPK504", "SPK506", "SPK507", "SPK603")
"""Told from packets that are not TCP, from the whole of a session, or from several of them."""
JUDGED_IN_WIRESHARK: Final = frozenset(FINDINGS) - {"SPK307", "SPK401", "SPK705", "SPK706", *ON_THE_COMMAND_LINE}
"""What the Wireshark plugin says by itself. The others are about key files, about Wireshark's own rows, which the plugin
replaces, about captures without any connection, and what only the command line tells."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation: a sentence, and the packets it rests on (Wireshark's numbers)."""

    text: str
    packets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RuledOut:
    """A look-alike that this capture excludes, and by what."""

    code: str
    because: str


@dataclass(slots=True)
class Finding:
    """One diagnosis that this capture supports. ``count`` conversations end the same way (folded into one)."""

    code: str
    confidence: Confidence
    summary: str
    severity: Severity
    evidence: tuple[Evidence, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    settle: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    wireshark_shows: str | None = None
    conversations: tuple[int, ...] = ()
    packets: tuple[int, ...] = ()
    count: int = 1
    first_ns: int | None = None
    last_ns: int | None = None
    cadence_s: float | None = None  # median time between the starts of the attempts folded here
    device: str | None = None
    exemplar: int | None = None  # the conversation that shows it most clearly
    predicate: str = ""  # what the device does, behind its address
    because: str = ""  # the half-sentence behind the word of confidence
    details: dict[str, object] = field(default_factory=dict)

    @property
    def spec(self) -> FindingSpec:
        """The row of the table."""
        return FINDINGS[self.code]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts what to show first: most severe, then most sure, then most specific."""
        return (
            SEVERITY_ORDER.index(self.severity),
            CONFIDENCE_ORDER.index(self.confidence),
            -self.spec.specific,
        )


@dataclass(frozen=True, slots=True)
class NotChecked:
    """A check that could not be made: a different thing from one that passed."""

    code: str
    because: str
    conversations: tuple[int, ...] = ()
