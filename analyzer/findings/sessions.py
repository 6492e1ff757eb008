"""What ends a session that came up (SPK5xx)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analyzer.catalogue import LARGEST_FRAME, PING_AFTER, PING_ANSWER_LIMIT, SERVER_IDLE_LIMIT, SMALLEST_FRAME_ON_WIRE
from analyzer.findings.commands import SAFE_MODE, WHICH_DEVICE
from analyzer.findings.model import Act, FindingSpec, Group, Key, LadderStep, Severity
from analyzer.findings.sources import issues, thread
from analyzer.findings.steps import AT_ONCE, CONNECT, DEVICE, FOREVER, LOGGED_IN, MESSAGES, PING, SERVER

SESSIONS: Final = (
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
        looks=f"A length of 0, no multiple of 16, or over {LARGEST_FRAME:,}, with no hole in the capture before it.",
        led="breathing cyan, then fast cyan",
        fix=("Update the server; the device reconnects by itself.",),
        settle="--device-key FILE shows the last message that was right.",
        not_it=(
            ("SPK703", "a hole in the capture"),
            ("SPK502", "there every message opens, but one number is left out"),
        ),
        engineer="be16 out of range where a frame should begin.",
        source="DIAGNOSES SPK501; PROTOCOL 4.3",
        ladder=(
            LOGGED_IN,
            MESSAGES,
            LadderStep(Act.BYTES, note="no message begins here", label="other bytes"),
            LadderStep(Act.CLOSE, note="one of the two hangs up", sometimes=True),
        ),
        keys=(
            (Key.DEVICE_PRIVATE, "good messages up to which one, and whether one is missing there"),
            (Key.SESSION, "the same"),
        ),
        seen_in=(issues("spark-server", 45, 66, 69),),
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
        ladder=(
            LOGGED_IN,
            LadderStep(Act.BYTES, DEVICE, "number 7, where 6 was due", label="a message"),
            LadderStep(Act.CLOSE, SERVER, "Bad Counter", wait=(0, AT_ONCE)),
        ),
        keys=((Key.DEVICE_PRIVATE, "the numbers: certain"), (Key.SESSION, "the same")),
        seen_in=(issues("core-communication-lib", 21),),
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
        means=f"The device pings after {PING_AFTER:.0f} s without a word from the server and waits {PING_ANSWER_LIMIT:.0f} s. The server's computer"
        " still confirms the packet, so its program hangs.",
        looks=f"{SMALLEST_FRAME_ON_WIRE} bytes from the device after {PING_AFTER:.0f} s of silence, acknowledged by TCP, no message back within {PING_ANSWER_LIMIT:.0f} s. With a key"
        " also: any request that one side makes and the other never answers.",
        led="breathing cyan, then fast cyan",
        fix=(
            "Own server: look at its load and its log at that moment, and restart it.",
            "Particle cloud: nothing on the device is wrong; it reconnects.",
        ),
        causes=("server program hangs", "server overloaded", "a function of the device's program that takes too long"),
        settle="--device-key FILE shows that it is a ping, and what came before it.",
        not_it=(
            ("SPK505", "the ping is not even acknowledged: the path is dead"),
            ("SPK506", "there the message is not even acknowledged, and only after a silence"),
            ("SPK508", "there nothing is asked: the device begins anew"),
            ("SPK509", "there the device hangs up at once, at a message of the server"),
        ),
        engineer=f"CON 0.00 without ACK for {PING_ANSWER_LIMIT:.0f} s.",
        source="DIAGNOSES SPK503; PROTOCOL 6",
        ladder=(
            LOGGED_IN,
            PING,
            LadderStep(Act.SILENCE, SERVER, "acknowledged, not answered", wait=(PING_ANSWER_LIMIT, FOREVER)),
            LadderStep(Act.CLOSE, DEVICE, "the device hangs up", sometimes=True),
        ),
        keys=(
            (Key.DEVICE_PRIVATE, "that it is a ping; any other request that was never answered"),
            (Key.SESSION, "the same"),
        ),
        seen_in=(issues("device-os", 410),),
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
        means=f"A device that works pings after {PING_AFTER:.0f} s without a word from the server. This one does not, though its network"
        f" still confirms packets: its program leaves the cloud no time. The community server allows {SERVER_IDLE_LIMIT:.0f} s of it.",
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
            ("SPK507", "there the server closes because of another login, not of a silence"),
        ),
        engineer="Server FIN at a fixed gap after the last device frame; device ACKs keep-alive probes or the FIN.",
        source="DIAGNOSES SPK504; PROTOCOL 6",
        ladder=(
            LOGGED_IN,
            LadderStep(Act.BYTES, DEVICE, "its last message", label="a message"),
            LadderStep(Act.SILENCE, DEVICE, f"not even a ping after {PING_AFTER:.0f} s", wait=(PING_AFTER, FOREVER)),
            LadderStep(Act.CLOSE, SERVER, f"the community server, after {SERVER_IDLE_LIMIT:.0f} s"),
        ),
        keys=((Key.DEVICE_PRIVATE, "the last message: what the program did"), (Key.SESSION, "the same")),
        recipes=(SAFE_MODE,),
        seen_in=(issues("Brewskey", 294), issues("device-os", 622), issues("docs", 599), thread(1322)),
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
            ("SPK206", "the reply is acknowledged, so it arrived; no hello follows"),
            ("SPK209", "the packets arrive at the first try, but late"),
            ("SPK504", "the device's network acknowledges, its program says nothing"),
            ("SPK506", "packets get lost after a silence only"),
            ("SPK703", "lost by the capture: acknowledged, and never sent again"),
        ),
        engineer="Retransmitted segments; unacknowledged data at the end.",
        source="DIAGNOSES SPK505",
        ladder=(
            LadderStep(Act.BYTES, note="a message, or part of the login", label="bytes"),
            LadderStep(Act.BYTES, note="the same again: not acknowledged", label="the same bytes"),
            LadderStep(Act.BYTES, note="and again, after longer pauses", label="the same bytes", sometimes=True),
        ),
        seen_in=(thread(2323), thread(36159)),
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
        means=f"Routers and firewalls keep a list of connections, and strike out the quiet ones. Devices ping after {PING_AFTER:.0f} s, so"
        " one that forgets sooner cuts each session off, and neither end is told.",
        looks="A silence, then a message of the device that is sent again and again without any answer, or a reset that"
        " does not come from the server; the same on each connection, after the same silence.",
        led="breathing cyan for up to 25 s although cut off, then fast cyan",
        fix=(
            "Raise the time that the router or firewall allows for a quiet TCP connection: 60 s or more.",
            "Nothing to set there: try another router, or a phone hotspot. If the connection holds, it was the router.",
            "Switch off power saving in the Wi-Fi access point.",
        ),
        causes=(f"NAT or firewall time-out below {PING_AFTER:.0f} s", "power saving in the Wi-Fi"),
        settle="A second capture beside the server: the repeated message does not arrive there.",
        not_it=(
            ("SPK503", "there the message is acknowledged, so it arrived"),
            ("SPK504", "there the device itself says nothing"),
            ("SPK505", "there packets get lost at any time, not after a silence only"),
        ),
        engineer="Retransmissions without any ACK, or RST with another TTL than the SYN-ACK's, behind mutual idle.",
        specific=1,
        source="DIAGNOSES SPK506; PROTOCOL 6",
        ladder=(
            LOGGED_IN,
            LadderStep(Act.SILENCE, note="as long each time"),
            LadderStep(Act.BYTES, DEVICE, "a ping or event", label="a message"),
            LadderStep(Act.BYTES, DEVICE, "again and again", label="the same message"),
            LadderStep(Act.SILENCE, SERVER, "not even acknowledged"),
        ),
        seen_in=(issues("spark-server", 35),),
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
            ("SPK210", "there the very bytes of a login come again, not only the ID"),
        ),
        engineer="Equal IDs in M2 of sessions that live at the same time at two addresses.",
        specific=1,
        source="DIAGNOSES SPK507; PROTOCOL 9.14",
        ladder=(
            replace(LOGGED_IN, note="one device"),
            replace(LOGGED_IN, note="another, with the same ID"),
            LadderStep(Act.CLOSE, SERVER, "the first one is thrown out", wait=(0, 1)),
        ),
        keys=((Key.SERVER_PRIVATE, "the ID in each login: certain"),),
        recipes=(WHICH_DEVICE,),
        seen_in=(issues("spark-server", 35), issues("Brewskey", 173)),
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
        looks="No FIN and no RST, then a SYN from another port of the same device. In its own network also whether it asks"
        " for an address (DHCP) in between, as after a start.",
        led="the start-up colours again",
        fix=(
            "Look at the power supply and the Wi-Fi signal.",
            "Start in safe mode, to leave the program on the device out of it.",
        ),
        causes=("power supply", "program crashes", "Wi-Fi loss"),
        settle="The LED at that moment: a restart shows the start-up colours.",
        not_it=(
            ("SPK503", "there the device closes after an unanswered ping"),
            ("SPK504", "there the device stays connected, and quiet, until the server closes"),
            ("SPK507", "two addresses in turn, one ID"),
        ),
        engineer="Established session without FIN or RST, followed by a new SYN.",
        source="DIAGNOSES SPK508",
        ladder=(
            LOGGED_IN,
            MESSAGES,
            LadderStep(Act.SILENCE, DEVICE, "nobody closes"),
            replace(CONNECT, note="a new connection, other port"),
        ),
        keys=((Key.DEVICE_PRIVATE, "firmware and product of each login, and whether an update went before"),),
        recipes=(SAFE_MODE,),
        seen_in=(thread(1322), issues("spark-server", 35, 70), issues("device-os", 477, 804)),
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
        not_it=(
            ("SPK503", "there nothing comes from the server before the device closes"),
            ("SPK502", "there the server hangs up, not the device"),
        ),
        engineer="4.xx to an event, FIN by firmware that treats unknown codes as errors; PROTOCOL 5.2.",
        source="DIAGNOSES SPK509; PROTOCOL 5.4.6, 5.4.10",
        ladder=(
            LOGGED_IN,
            LadderStep(Act.BYTES, DEVICE, "an event of the program", label="a message", sometimes=True),
            LadderStep(Act.BYTES, SERVER, "what the device does not bear", label="a message"),
            LadderStep(Act.CLOSE, DEVICE, "the device hangs up", wait=(0, AT_ONCE)),
        ),
        keys=((Key.DEVICE_PRIVATE, "the message's name and code: certain"), (Key.SESSION, "the same")),
    ),
)
