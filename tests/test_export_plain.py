"""The plain CoAP export, read back by the real Wireshark."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from decrypted import CAPTURES, Talk, place, read, session, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.coap import encode
from analyzer.export.plain import LONGEST_COMMENT, PlainWriter, write_plain
from analyzer.keys import KeyRing
from analyzer.messages import label, summary
from analyzer.pipeline import analyze

EVENT = encode(1, 2, 7, options=[(11, b"E"), (11, b"temp")], payload=b"21.5")


def written(path: Path, *talks: Talk) -> Path:
    with path.open("wb") as stream:
        write_plain(stream, talks)
    return path


def wireshark(path: Path, *fields: str, only: str = "") -> list[list[str]]:
    wanted = [part for name in fields for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *wanted, "-Y", only]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bug" not in run.stderr.lower()
    return [line.split("\t") for line in run.stdout.split("\n")[:-1]]


@pytest.mark.parametrize("name", ["healthy-full", "photon-fast-ota", "ota-complete"])
def test_wireshark_reads_every_message_as_we_do(name: str, tmp_path: Path) -> None:
    talk = session(name)
    path = written(tmp_path / "plain.pcapng", talk)
    header = ("frame.protocols", "coap.type", "coap.code", "coap.mid", "coap.token")
    ends = ("ip.src", "ip.dst", "exported_pdu.src_port", "exported_pdu.dst_port", "exported_pdu.orig_fno")
    rows = wireshark(path, *header, "frame.time_epoch", "frame.comment", *ends)
    assert len(rows) == len(talk.messages)
    for row, message in zip(rows, talk.messages, strict=True):
        assert row[0].split(":")[:2] == ["exported_pdu", "coap"]
        assert row[1] == str(("CON", "NON", "ACK", "RST").index(message.type or ""))
        assert message.coap is not None
        assert row[2:5] == [str(message.coap.code), str(message.message_id), message.coap.token.hex()]
        assert row[5] == f"{message.time_ns // 10**9}.{message.time_ns % 10**9:09d}"
        said = f"{label(message)} {summary(message)}".strip()
        answered = "" if message.answers is None else f", answers packet {message.answers_packet}"
        assert row[6].replace("\\\\", "\\") == f"{said} · packet {message.packet} of the capture{answered}"
        sent = [talk.device, talk.server]
        source, target = sent if message.direction == "device" else sent[::-1]
        assert row[7:] == [source.ip, target.ip, str(source.port), str(target.port), str(message.packet)]


def test_wireshark_pairs_the_requests_and_responses_that_we_pair(tmp_path: Path) -> None:
    """Those in acknowledgements: separate ones it leaves alone, so the comments name the request."""
    talk = session("healthy-full")
    path = written(tmp_path / "plain.pcapng", talk)
    rows = wireshark(path, "frame.number", "coap.response_to", "frame.comment")
    answers = [message for message in talk.messages if message.answers is not None]
    direct = [m for m in answers if m.type == "ACK" and m.token == talk.messages[m.answers or 0].token and m.token]
    assert [row[:2] for row in rows if row[1]] == [[str(m.index + 1), str((m.answers or 0) + 1)] for m in direct]
    assert len(direct) == 11
    for message in answers:
        assert rows[message.index][2].endswith(f" of the capture, answers packet {message.answers_packet}")


def test_text_that_the_device_published_is_in_the_payload(tmp_path: Path) -> None:
    talk = Talk(messages=read([("device", EVENT)]))
    path = written(tmp_path / "plain.pcapng", talk)
    assert wireshark(path, "coap.opt.uri_path_recon", "data.text", "coap.payload")[0][0] == "/E/temp"
    assert wireshark(path, "frame.comment") == [['Event temp = "21.5", private, 60 s · packet 1 of the capture']]


def test_two_conversations_come_in_the_order_of_the_capture_and_stay_apart(tmp_path: Path) -> None:
    first, second = session("healthy-full", 1), session("photon-fast-ota", 2)
    for message in first.messages:
        message.packet *= 3
    path = written(tmp_path / "plain.pcapng", first, second)
    rows = wireshark(path, "frame.interface_name", "frame.interface_description", "exported_pdu.orig_fno")
    packets = [int(row[2]) for row in rows]
    assert packets == sorted(packets)
    assert {row[0] for row in rows} == {"conversation 1", "conversation 2"}
    assert sum(row[0] == "conversation 1" for row in rows) == len(first.messages)
    described = next(row[1] for row in rows if row[0] == "conversation 2")
    assert described == (
        f"device {second.device.ip} port {second.device.port} ({second.device.id}), server 54.208.229.4 port 5683"
    )


def test_a_capture_and_its_export_agree_on_packets_and_times(tmp_path: Path) -> None:
    capture = CAPTURES / "capture-gap.pcap"
    trace = analyze(capture, keys=KeyRing.load(CAPTURES / "keys"))
    path = tmp_path / "plain.pcapng"
    with path.open("wb") as stream:
        counts = write_plain(stream, trace.conversations)
    told = truth("capture-gap")["sessions"][0]
    # Three frames were taken out, in two places; the frame behind each has one block, so nothing of it is left.
    assert (counts.messages, counts.tails) == (len(told["c2s"]) + len(told["s2c"]) - 5, 0)
    times = dict(wireshark(capture, "frame.number", "frame.time_epoch"))
    rows = wireshark(path, "exported_pdu.orig_fno", "frame.time_epoch")
    assert [row[1] for row in rows] == [times[row[0]] for row in rows]


def test_addresses_of_ipv6(tmp_path: Path) -> None:
    talk = Talk(1, place("2001:db8::104", 41000), place("2001:db8::5", 5683), read([("device", EVENT)]))
    path = written(tmp_path / "plain.pcapng", talk)
    assert wireshark(path, "ipv6.src", "ipv6.dst", "coap.code") == [["2001:db8::104", "2001:db8::5", "2"]]


def test_a_message_without_its_front_is_shown_as_data_and_counted(tmp_path: Path) -> None:
    talk = Talk(messages=read([("device", EVENT), ("device", b"erature\xff21.5", 16), ("server", b"", 16)]))
    path = tmp_path / "plain.pcapng"
    with path.open("wb") as stream:
        counts = write_plain(stream, [talk])
    assert (counts.messages, counts.tails) == (1, 2)
    assert str(counts) == "1 message, 2 more without their first bytes, as data"
    rows = wireshark(path, "coap.mid", "data.data", "frame.comment")
    assert [row[0] for row in rows] == ["7", "", ""]
    assert rows[1][1] == b"erature\xff21.5".hex()
    assert "(front lost) first 16 bytes lost" in rows[1][2]
    assert "nothing is left" in rows[2][2]


def test_the_tools_of_wireshark_take_the_file(tmp_path: Path) -> None:
    talk = session("healthy-full")
    path = written(tmp_path / "plain.pcapng", talk)
    told = subprocess.run(["capinfos", "-T", "-m", "-c", "-E", str(path)], capture_output=True, text=True, check=True)
    assert str(len(talk.messages)) in told.stdout
    assert "exported_pdu" in told.stdout or "wireshark-upper-pdu" in told.stdout
    part = tmp_path / "part.pcapng"
    subprocess.run(["editcap", "-r", str(path), str(part), "1-3"], check=True)
    assert [row[0] for row in wireshark(part, "coap.mid")] == [str(m.message_id) for m in talk.messages[:3]]


def test_peers_cannot_write_into_the_comment_what_is_not_theirs(tmp_path: Path) -> None:
    hostile = encode(1, 2, 7, options=[(11, b"e"), (11, b"a\x1b[2J\r\nb\xe2\x80\xae")], payload=b"\n" * 900)
    path = written(tmp_path / "plain.pcapng", Talk(messages=read([("device", hostile)])))
    raw = path.read_bytes()
    comment = raw[raw.index(b"Event ") : raw.index(b" of the capture")]
    assert comment.decode().isprintable()
    assert len(comment) < LONGEST_COMMENT


def test_a_clock_outside_of_the_format_is_held_at_its_ends(tmp_path: Path) -> None:
    talk = Talk(messages=read([("device", EVENT), ("device", EVENT)]))
    talk.messages[0].time_ns, talk.messages[1].time_ns = -5, 1 << 70
    path = written(tmp_path / "plain.pcapng", talk)
    assert wireshark(path, "frame.time_epoch")[0] == ["0.000000000"]


def test_nothing_decrypted_is_a_valid_file_without_packets(tmp_path: Path) -> None:
    path = written(tmp_path / "plain.pcapng", Talk())
    assert wireshark(path, "frame.number") == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["device", "server"]), st.binary(max_size=40), st.integers(0, 20))))
def test_any_plaintext_is_written_whole(lines: list[tuple[str, bytes, int]]) -> None:
    stream = io.BytesIO()
    writer, talk = PlainWriter(stream), Talk(messages=read(lines))
    for message in talk.messages:
        before = stream.tell()
        writer.add(talk, message)
        block = stream.getvalue()[before:]
        assert message.plaintext in block
        assert len(block) % 4 == 0
    assert writer.written.messages + writer.written.tails == len(lines)
