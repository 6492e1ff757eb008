"""What a capture cannot show, and what is no Spark traffic (SPK401, SPK7xx, SPK801)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analyzer.catalogue import HELLO_FRAMES, PRESENCE_SIZE, SPARK_PORT
from analyzer.findings.model import Act, FindingSpec, Group, Key, LadderStep, Severity
from analyzer.findings.sources import issues, thread
from analyzer.findings.steps import CONNECTED, DEVICE, GREETING, MESSAGES, REPLY, SERVER, WHO_I_AM

CAPTURES: Final = (
    FindingSpec(
        "SPK401",
        "misread-as-coap",
        Severity.INFO,
        Group.MISPARSE,
        title='"Malformed CoAP" is a red herring',
        short="CoAP error codes",
        says="The CoAP codes that Wireshark shows are random bytes read as CoAP. Ignore them.",
        of="is shown as CoAP by Wireshark",
        means=f"Wireshark takes TCP port {SPARK_PORT} for CoAP. The greeting and the locked blocks are random numbers, and"
        " every message begins with its length: none of it is CoAP before it is decrypted.",
        looks='"Unknown 16" again and again, and some random code for the greeting.',
        fix=("tshark without the wrong reading:", "  tshark --disable-protocol coap -r FILE"),
        settle="sparkshark explain 'ROW TEXT' CAPTURE shows the bytes that made a row.",
        not_it=(("SPK801", "genuine CoAP over TCP parses to the end, in both directions"),),
        engineer="RFC 8323 framing applied to M1-M3 and to the 2-byte length prefix.",
        source="DIAGNOSES SPK401; PROTOCOL 2.1",
        ladder=(
            CONNECTED,
            replace(GREETING, note='"Unknown 178", "4.04 Not Found": any'),
            replace(WHO_I_AM, note="any code, or none"),
            replace(REPLY, note='any, or "TCP segment of ..."'),
            LadderStep(Act.BYTES, DEVICE, '"Unknown 16" (or 32): its length', HELLO_FRAMES),
        ),
        seen_in=(thread(2662), issues("nDPI", 170)),
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
        not_it=(
            ("SPK801", "no message of this protocol at all, in either direction"),
            ("SPK703", "the beginning is there, something later is missing"),
        ),
        engineer="No SYN and no M3.",
        source="DIAGNOSES SPK701; PROTOCOL 4.5",
        ladder=(replace(MESSAGES, note="the first packets of the file"),),
        keys=((Key.SESSION, "opens what follows, all but the first message of each side"),),
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
        not_it=(
            ("SPK101", "there no packet acknowledges anything that is not in the capture"),
            ("SPK703", "both directions are there, with holes"),
        ),
        engineer="ACK advances over unseen segments; no packet of the other sender.",
        source="DIAGNOSES SPK702",
        ladder=(
            replace(WHO_I_AM, note="the device's packets only ..."),
            LadderStep(Act.SILENCE, SERVER, "... which acknowledge bytes that are not in the file"),
        ),
        seen_in=(thread(2662),),
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
        means="Packets were not captured, or only their first bytes, or a file of a series is missing. The connection"
        " itself need not have lost them.",
        looks="Sequence numbers that were acknowledged but never captured; captured length below the original; a number"
        " skipped in the names of a ring buffer's files.",
        fix=("Complete next time:", f"  tcpdump -s 0 -B 8192 -w FILE port {SPARK_PORT}"),
        settle="A complete capture.",
        not_it=(
            ("SPK701", "there the beginning is missing, and all the rest is there"),
            ("SPK505", "lost on the network: sent again, and then there"),
            ("SPK501", "there the two ends themselves do not go on"),
            ("SPK702", "there all packets of one end are missing"),
        ),
        engineer="Stream holes, snaplen cuts, damaged records, absent files.",
        source="DIAGNOSES SPK703; PROTOCOL 4.5",
        ladder=(
            replace(MESSAGES, sometimes=True),
            LadderStep(Act.HOLE, note="was acknowledged, so it arrived"),
            replace(MESSAGES, note="they go on as if nothing was", sometimes=True),
        ),
        seen_in=(issues("scapy", 2616, 4340, 4683),),
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
        settle="The same capture without the copies: editcap -d FILE NEW",
        not_it=(
            ("SPK505", "sent again by the device or the server: another IP ID, a pause before it"),
            ("SPK210", "two connections, each with TCP sequence numbers of its own, hold the same bytes"),
        ),
        engineer="Same IP ID, sequence, flags and length; checksum wrong for one sender only.",
        source="DIAGNOSES SPK704",
        ladder=(
            GREETING,
            replace(GREETING, note="the very same packet again", wait=(0, 1), sometimes=True),
        ),
        no_fix="Nothing: copies are counted once, and checksums that a network card fills in later are not judged.",
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
        settle="A capture made where the device's packets pass.",
        not_it=(("SPK706", "all can be read, and none of it is a Spark connection"),),
        engineer="Monitor mode without keys shows no IP.",
        source="DIAGNOSES SPK705",
        ladder=(LadderStep(Act.SEALED, note="no address, no port, no size to tell it by"),),
        seen_in=(thread(2662),),
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
        means=f"No TCP conversation on port {SPARK_PORT} (or the ports given) is in the capture.",
        looks="Other traffic only.",
        fix=(
            "Capture where the device's packets pass: on the router or on the server. Another computer in the"
            " Wi-Fi does not see them.",
            "Capture, reset the device, wait 60 s. Other port: --port N",
        ),
        settle="A capture of the device's start, made where its packets pass.",
        not_it=(
            ("SPK705", "there is traffic of the device, but not to be read"),
            ("SPK701", "a connection that began before the capture is still one"),
        ),
        engineer="No segment to or from the wanted ports.",
        source="DIAGNOSES SPK706",
        ladder=(
            LadderStep(Act.LOOKUP, DEVICE, "perhaps seen", sometimes=True),
            LadderStep(Act.ANNOUNCE, DEVICE, "perhaps seen", (PRESENCE_SIZE,), sometimes=True),
            LadderStep(Act.SILENCE, note="no connection on the port"),
        ),
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
        not_it=(
            ("SPK701", "there messages follow each other by their lengths, from both sides"),
            ("SPK103", "there the device dials, and the other side speaks first"),
            ("SPK401", "a Spark connection that Wireshark shows as CoAP"),
        ),
        settle="What runs on both ends of the connection.",
        engineer="RFC 8323 messages that parse to their exact ends, a CSM (7.01) first; or a TLS ClientHello.",
        source="DIAGNOSES SPK801",
        ladder=(
            CONNECTED,
            LadderStep(Act.BYTES, DEVICE, "the connecting side speaks first", label="a request"),
            LadderStep(Act.BYTES, SERVER, "and is answered", label="an answer", sometimes=True),
        ),
        seen_in=(issues("nDPI", 170),),
    ),
)
