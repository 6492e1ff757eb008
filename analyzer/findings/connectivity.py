"""The session that works, and what prevents a connection (SPK001, SPK1xx)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analyzer.catalogue import (
    CLOUD_NAME,
    DEVICE_READ_LIMIT,
    FALLBACK_ADDRESS,
    NONCE_SIZE,
    PING_AFTER,
    SMALLEST_FRAME_ON_WIRE,
    SPARK_PORT,
)
from analyzer.findings.commands import BUTTONS, OWN_KEY, OWN_SERVER_KEY, STORED, STORED_ADDRESS
from analyzer.findings.model import Act, FindingSpec, Group, Key, LadderStep, Severity
from analyzer.findings.sources import issues, thread
from analyzer.findings.steps import (
    CONNECT,
    CONNECTED,
    DEVICE,
    FOREVER,
    LOGIN,
    LOGIN_SIZES,
    MESSAGES,
    PING,
    PONG,
    SERVER,
    SMALLEST,
    WHO_I_AM,
)

CONNECTIVITY: Final = (
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
        looks=f"{LOGIN_SIZES}, then frames of legal length both ways; when idle, {SMALLEST_FRAME_ON_WIRE} bytes from the device"
        f" every {PING_AFTER:.0f} s, answered by {SMALLEST_FRAME_ON_WIRE} bytes.",
        led="breathing cyan",
        settle="--device-key FILE opens the messages and makes it certain.",
        not_it=(("SPK701", "the login is not in the capture"),),
        engineer="M1 to M5 complete; the first server frame is the key-free proof.",
        source="DIAGNOSES SPK001; PROTOCOL 2.1",
        ladder=(*LOGIN, MESSAGES, replace(PING, sometimes=True), replace(PONG, sometimes=True)),
        keys=(
            (Key.DEVICE_PRIVATE, "opens both hellos and all messages: certain"),
            (Key.SERVER_PUBLIC, "the reply's signature: which server it is"),
            (Key.SERVER_PRIVATE, 'opens "who I am": the device\'s ID'),
        ),
        no_fix="Nothing of the connection is to be repaired.",
        seen_in=(thread(27715),),
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
        causes=(f"a firewall drops TCP {SPARK_PORT}", "the server is off", "a stale local address in the device"),
        settle="An ICMP refusal in the capture, or the test from a computer beside the device.",
        not_it=(
            ("SPK702", "then the device's own answers to packets that are not in the capture show"),
            ("SPK102", "a refusal is an answer: a RST is in the capture"),
            ("SPK105", "the name is not found, and the built-in address is dialled"),
            ("SPK106", "the device dials a place where no Spark server ever was, or is no longer"),
        ),
        engineer="SYN retransmission without SYN-ACK; ICMP type 3 makes it certain and names who said so.",
        source="DIAGNOSES SPK101",
        ladder=(
            CONNECT,
            replace(CONNECT, note="again, with growing pauses", wait=(0.5, FOREVER)),
            LadderStep(Act.SILENCE, SERVER, "not one answer"),
        ),
        seen_in=(thread(3793), thread(36159), thread(27715)),
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
            STORED_ADDRESS,
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
            ("SPK101", "there neither an answer nor a refusal comes"),
            ("SPK106", "the refusal comes from a place where no Spark server belongs"),
        ),
        engineer="RST to SYN, or RST from the server's side before the first byte.",
        source="DIAGNOSES SPK102",
        ladder=(
            CONNECT,
            LadderStep(Act.RESET, SERVER, "refused; or cut off as soon as it was accepted", wait=(0, 1)),
        ),
        recipes=(STORED, BUTTONS),
        seen_in=(issues("Brewskey", 270, 297),),
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
        means=f"The first bytes from the server's side are not the {NONCE_SIZE} random bytes of a greeting. The device takes"
        f" any {NONCE_SIZE} bytes for a greeting and goes on, so only a capture shows it.",
        looks="Readable text or a TLS record where the greeting belongs.",
        led="fast cyan, red",
        fix=(
            "In a Wi-Fi with a login page: have its operator let the device through without login{mac}, or use"
            " another Wi-Fi.",
            "Own server: compare address and port:",
            STORED_ADDRESS,
        ),
        causes=("a captive portal", "the port of another service", "a proxy that speaks first"),
        settle="The bytes themselves; no key.",
        not_it=(
            ("SPK801", "there the device's side speaks first"),
            ("SPK104", "a portal that waits stays silent"),
            ("SPK201", "random bytes, but not 40 of them"),
        ),
        engineer=f"At least 95 % of the first {NONCE_SIZE} bytes printable, or a known first word; a nonce never is.",
        specific=1,
        source="DIAGNOSES SPK103",
        ladder=(
            CONNECTED,
            LadderStep(Act.BYTES, SERVER, "text or TLS, no random number", label="other bytes"),
            replace(WHO_I_AM, note="sent all the same", sometimes=True),
            LadderStep(Act.CLOSE, note="one of the two hangs up", sometimes=True),
        ),
        recipes=(STORED, BUTTONS),
        seen_in=(thread(2662), thread(2414)),
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
        looks=f"SYN, SYN-ACK, ACK, then no byte from the server before one side gives up; the device waits {DEVICE_READ_LIMIT:.0f} s.",
        led=f"fast cyan, then red about every {DEVICE_READ_LIMIT:.0f} s",
        fix=(
            f"On a computer in the same network; {NONCE_SIZE} random bytes must appear at once:",
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
        not_it=(
            ("SPK702", "one direction was not captured"),
            ("SPK103", "something did answer"),
            ("SPK102", "there a RST says no, and at once"),
            ("SPK106", "the silence is that of a web server, which waits to be asked"),
        ),
        engineer="TCP established, 0 stream bytes from the server, ACK numbers included.",
        source="DIAGNOSES SPK104; PROTOCOL 2.4 D1",
        ladder=(
            CONNECTED,
            LadderStep(Act.SILENCE, SERVER, "no greeting"),
            LadderStep(
                Act.BYTES, DEVICE, "firmware of 2014: ping, locked with an all-zero key", SMALLEST, sometimes=True
            ),
            LadderStep(
                Act.CLOSE,
                note=f"the device gives up after {DEVICE_READ_LIMIT:.0f} s, or the server before",
                sometimes=True,
            ),
        ),
        recipes=(STORED, BUTTONS),
        seen_in=(issues("spark-server", 74), thread(2662)),
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
        means=f"The device asks for {CLOUD_NAME}. When no answer comes, firmware of 2013 to 2016 dials a fixed"
        " address as its last resort. Whether that address still serves is not known.",
        looks=f"Questions for {CLOUD_NAME}, up to 9, that stay unanswered or find nothing; then a request to"
        f" connect to {FALLBACK_ADDRESS}.",
        led="blinking cyan for longer than usual, then as SPK101; or all as usual, if the address serves",
        fix=(
            "On a computer in the same Wi-Fi, look the name up:",
            f"  nslookup {CLOUD_NAME}",
            f"· With another DNS server: nslookup {CLOUD_NAME} 9.9.9.9",
            "Only the first one fails: set a working DNS server in the router's DHCP settings, then reset the device.",
            "Both work: reset the device, and capture again from the moment it joins the Wi-Fi.",
            "Both fail: the name itself is gone. Store a server's key and address in the device, in DFU mode:",
            OWN_SERVER_KEY,
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
        engineer=f"SYN to {FALLBACK_ADDRESS} after NXDOMAIN, an empty answer or 2 and more questions without any; never from"
        " the address alone, which the name itself may lead to. Info when the session comes up.",
        specific=1,
        source="DIAGNOSES SPK105; PROTOCOL 1.4",
        ladder=(
            LadderStep(Act.LOOKUP, DEVICE, f"where is {CLOUD_NAME}?"),
            LadderStep(Act.LOOKUP, DEVICE, "no answer, or none of use: again, up to 9 times"),
            replace(CONNECT, note=f"the built-in address {FALLBACK_ADDRESS}"),
        ),
        recipes=(OWN_KEY, BUTTONS),
        seen_in=(thread(2662),),
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
        f" 8080) and {DEVICE_READ_LIMIT:.0f} s of silence; an address that the name lookup did not give;"
        " or another server than --expect-server names, or than a dump of the device's key slot has stored.",
        led="3 blinks where nobody answers; fast cyan, then red, on a web server's port",
        fix=(
            "Read what the device has stored; in DFU mode (blinking yellow), on USB:",
            STORED_ADDRESS,
            "Write server key and address together, in DFU mode:",
            f"  particle keys server server.pub.pem --host ADDRESS --port {SPARK_PORT}",
            "· Some releases of the command want --protocol tcp as well.",
            "Give the server a fixed address in the router, so that it does not move again.",
        ),
        causes=(
            "the server has moved",
            "the port of its web interface (8080) was stored",
            "DNS leads astray",
        ),
        settle="--expect-server HOST says where the device should call; particle keys address, what is stored in it.",
        not_it=(
            ("SPK101", "the address is right, and something on the way drops the packets"),
            ("SPK104", "the right server hangs"),
            ("SPK105", "no lookup gave any address, and the built-in one is dialled"),
            ("SPK102", "a machine is there and refuses"),
        ),
        engineer="Unanswered SYN to an RFC 1918 address with unanswered ARP or ICMP host unreachable; port 80, 443 or"
        f" 8080 with a Spark device's behaviour; SYN to an address that no answer for {CLOUD_NAME} gave. Never after"
        " a nonce.",
        specific=1,
        source="DIAGNOSES SPK106",
        ladder=(
            replace(CONNECT, note="a place where no Spark server is"),
            LadderStep(Act.SILENCE, SERVER, f"nobody is there; or {DEVICE_READ_LIMIT:.0f} s without a greeting"),
        ),
        keys=((Key.SERVER_PUBLIC, "read out of the device: the address stands behind it: certain"),),
        recipes=(OWN_KEY, STORED, BUTTONS),
        seen_in=(issues("Brewskey", 263, 270, 303),),
    ),
)
