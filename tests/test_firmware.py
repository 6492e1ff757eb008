"""Firmware images out of updates: recorded ones, made-up ones, and ones with holes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import zlib
from pathlib import Path

import pytest
from decrypted import CAPTURES, Line, read, session, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.coap import ACK, CODES, CON, NON, encode
from analyzer.export import ExportError, FirmwareCollector, FirmwareImage, collect_images, save_images
from analyzer.export.firmware import MOST_UPDATES
from analyzer.export.transfer import LARGEST_IMAGE
from analyzer.keys import KeyRing
from analyzer.pipeline import analyze

PATH, QUERY = 11, 15
CHUNK = 64


class Update:
    """What a server and a device say to each other during an update, as decrypted lines."""

    def __init__(self, server_id: int = 0x7000, device_id: int = 0x1000) -> None:
        self.lines: list[Line] = []
        self.server_id, self.device_id, self.token = server_id, device_id, 0

    def server(self, code: str, letter: bytes, *queries: bytes, payload: bytes | None = None) -> tuple[int, bytes]:
        """A request of the server; returns what an answer has to carry."""
        self.server_id = (self.server_id + 1) & 0xFFFF
        self.token = (self.token + 1) & 0xFF
        options = [(PATH, letter), *((QUERY, query) for query in queries)]
        token = bytes((self.token,))
        self.lines.append(
            ("server", encode(CON, CODES[code], self.server_id, token=token, options=options, payload=payload))
        )
        return self.server_id, token

    def device(self, kind: int, code: str, *, message_id: int | None = None, **parts: bytes) -> int:
        if message_id is None:
            self.device_id = message_id = (self.device_id + 1) & 0xFFFF
        self.lines.append(("device", encode(kind, CODES[code], message_id, **parts)))  # type: ignore[arg-type]
        return message_id

    def begin(self, length: int | None, *, size: int = CHUNK, fast: bool = False, letter: bytes = b"u") -> None:
        particulars = b""
        if length is not None:
            particulars = bytes((fast,)) + size.to_bytes(2, "big") + length.to_bytes(4, "big") + b"\x80\0\1\2\3"
        message_id, token = self.server("0.02", letter, payload=particulars or None)
        self.device(ACK, "0.00", message_id=message_id)
        self.device(NON, "2.04", token=token, payload=bytes((fast,)))

    def chunk(self, data: bytes, *, index: int | None = None, crc: int | None = None) -> tuple[int, bytes]:
        queries = [(zlib.crc32(data) if crc is None else crc).to_bytes(4, "big")]
        if index is not None:
            queries.append(index.to_bytes(2, "big"))
        return self.server("0.02", b"c", *queries, payload=data)

    def answer(self, sent: tuple[int, bytes], code: str | None = "2.04") -> None:
        """The acknowledgement, then ChunkReceived with that code, or nothing more."""
        self.device(ACK, "0.00", message_id=sent[0])
        if code is not None:
            self.device(NON, code, token=sent[1])

    def send(self, data: bytes, code: str | None = "2.04") -> None:
        self.answer(self.chunk(data), code)

    def missed(self, *indexes: int) -> int:
        payload = b"".join(index.to_bytes(2, "big") for index in indexes)
        options = encode(CON, CODES["0.01"], 0, options=[(PATH, b"c")], payload=payload)
        self.device_id = (self.device_id + 1) & 0xFFFF
        self.lines.append(("device", options[:2] + self.device_id.to_bytes(2, "big") + options[4:]))
        return self.device_id

    def heard(self, message_id: int) -> None:
        self.lines.append(("server", encode(ACK, 0, message_id)))

    def done(self, code: str = "2.04") -> None:
        message_id, token = self.server("0.03", b"u")
        self.device(ACK, code, message_id=message_id, token=token)

    def images(self) -> list[FirmwareImage]:
        return collect_images(read(self.lines))

    def image(self) -> FirmwareImage:
        (image,) = self.images()
        return image


def cut(data: bytes, size: int = CHUNK) -> list[bytes]:
    """Chunks as servers make them: the last one is filled up with zeros."""
    return [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]


FILE = random.Random(5).randbytes(5 * CHUNK - 17)
PIECES = cut(FILE)


def sent_by_server(name: str) -> bytes:
    """The image as the server's recorded bytes have it, cut out by fixed offsets and without our decoder."""
    lines = [bytes.fromhex(line["hex"]) for line in truth(name)["sessions"][0]["s2c"]]
    begin = next(line for line in lines if line[:2] == b"\x41\x02" and line[5:7] == b"\xb1u")
    fast, length = begin[8], int.from_bytes(begin[11:15], "big")
    chunks = [line for line in lines if line[:2] == b"\x41\x02" and line[5:8] == b"\xb1cD"]
    return b"".join(line[16 if fast else 13 :] for line in chunks)[:length]


# -- recorded updates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size", "chunks"), [("ota-complete", 62000, 243), ("photon-fast-ota", 16000, 63)])
def test_a_recorded_image_is_byte_for_byte_what_the_server_sent(name: str, size: int, chunks: int) -> None:
    (image,) = collect_images(session(name).messages)
    wanted = sent_by_server(name)
    assert len(wanted) == size
    assert image.data == wanted
    assert image.sha256 == hashlib.sha256(wanted).hexdigest()
    assert (image.complete, image.accepted, image.size, image.chunks) == (True, True, size, chunks)
    assert (image.missing, image.crc_failures, image.notes) == ((), 0, ())
    assert (image.chunk_size, image.store, image.address) == (256, 0, 0)
    assert image.fast == (name == "photon-fast-ota")


@pytest.mark.parametrize("name", ["ota-complete", "photon-fast-ota"])
def test_the_same_image_comes_out_of_the_capture_with_its_keys(name: str) -> None:
    (conversation,) = analyze(CAPTURES / f"{name}.pcap", keys=KeyRing.load(CAPTURES / "keys")).conversations
    (image,) = collect_images(conversation.messages)
    assert (image.complete, image.data) == (True, sent_by_server(name))


def test_a_chunk_of_the_slow_form_and_one_of_the_fast_form_in_one_update() -> None:
    vectors = json.loads((CAPTURES.parent / "tests" / "vectors" / "vectors.json").read_text())
    told = next(each for each in vectors["sessions"] if each["name"] == "photon-1.4")
    lines = [(frame["dir"].partition("->")[0], bytes.fromhex(frame["coap"])) for frame in told["frames"]]
    (image,) = collect_images(read(lines))
    assert (image.data, image.complete) == (bytes(range(32)) * 2, True)
    assert (image.crc_failures, image.refused, image.missed) == (1, 1, 1)


def test_an_update_that_the_server_gave_up_is_partial_and_says_what_is_missing(tmp_path: Path) -> None:
    (image,) = collect_images(session("ota-server-gives-up").messages)
    sent = sent_by_server("ota-server-gives-up")[: 31 * 256]
    assert (image.complete, image.sha256, image.accepted) == (False, None, None)
    assert image.data == sent
    assert image.missing == ((31 * 256, 20000),)
    assert (image.missed, image.repeated) == (14, 10)
    paths = save_images([image], tmp_path, 3)
    assert paths == [str(tmp_path / "firmware-3-1.bin.partial"), str(tmp_path / "firmware-3-1.bin.partial.txt")]
    assert Path(paths[0]).read_bytes() == sent
    assert "missing: bytes 7936 to 19999 (12064)" in Path(paths[1]).read_text()


def test_a_session_without_an_update_has_no_image() -> None:
    assert collect_images(session("healthy-full").messages) == []


# -- the slow form ------------------------------------------------------------------------------------------


def test_a_refused_chunk_is_sent_again_to_the_same_place() -> None:
    update = Update()
    update.begin(len(FILE))
    update.send(PIECES[0])
    update.answer(update.chunk(PIECES[1], crc=1), "4.00")
    update.send(PIECES[1], "4.00")
    for piece in PIECES[1:]:
        update.send(piece)
    update.done()
    image = update.image()
    assert (image.data, image.complete) == (FILE, True)
    assert (image.crc_failures, image.refused, image.repeated, image.chunks) == (1, 2, 1, 5)
    assert (image.store, image.address) == (128, 0x00010203)


def test_a_missed_chunk_sends_the_server_back_to_its_index() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES[:3]:
        update.send(piece)
    update.answer(update.chunk(PIECES[3]), None)
    update.heard(update.missed(1))
    for piece in PIECES[1:]:
        update.send(piece)
    update.done()
    image = update.image()
    assert (image.data, image.complete, image.repeated) == (FILE, True, 3)


def test_a_chunk_that_crosses_the_missed_report_stays_where_it_belongs() -> None:
    update = Update()
    update.begin(len(FILE))
    update.send(PIECES[0])
    report = update.missed(1)
    crossing = update.chunk(PIECES[1])
    update.heard(report)
    again = update.chunk(PIECES[1])
    update.answer(crossing)
    update.answer(again)
    for piece in PIECES[2:]:
        update.send(piece)
    update.done()
    assert (update.image().data, update.image().complete) == (FILE, True)


def test_chunks_that_come_twice_are_one() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES:
        update.send(piece)
        update.lines.append(update.lines[-3])
        update.lines.append(update.lines[-2])
    update.done()
    image = update.image()
    assert (image.data, image.complete, image.repeated) == (FILE, True, 5)


def test_blocks_that_are_all_alike_are_told_apart_by_their_answers() -> None:
    data = b"\xff" * (6 * CHUNK)
    update = Update()
    update.begin(len(data))
    for position, piece in enumerate(cut(data)):
        update.send(piece, "4.00" if position == 3 else "2.04")
        if position == 3:
            update.send(piece)
    update.done()
    assert (update.image().data, update.image().complete, update.image().repeated) == (data, True, 1)


def test_an_answer_that_is_not_in_the_capture_is_made_up_for_by_the_end() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES:
        update.send(piece)
    del update.lines[7:9]
    assert not update.image().complete
    assert "not certain" in update.image().notes[0]
    update.done()
    assert (update.image().complete, update.image().notes, update.image().data) == (True, (), FILE)


def test_lost_chunks_leave_a_hole_of_their_size() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES:
        update.send(piece)
    update.done()
    del update.lines[6:12]  # chunks 1 and 2 with their answers
    image = update.image()
    assert image.missing == ((CHUNK, 3 * CHUNK),)
    assert image.data == FILE[:CHUNK] + bytes(2 * CHUNK) + FILE[3 * CHUNK :]
    assert (image.complete, image.sha256) == (False, None)


def test_a_chunk_without_its_front_is_missing_and_its_answer_tells_so() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES:
        update.send(piece)
    update.done()
    sender, plaintext = update.lines[6][:2]
    update.lines[6] = sender, plaintext[16:], 16
    image = update.image()
    assert image.missing == ((CHUNK, 2 * CHUNK),)
    assert image.data[2 * CHUNK :] == FILE[2 * CHUNK :]


# -- announcements ------------------------------------------------------------------------------------------


def test_without_an_announced_length_the_padding_stays_and_is_mentioned() -> None:
    update = Update()
    update.begin(None)
    for piece in PIECES:
        update.send(piece)
    update.done()
    image = update.image()
    assert image.data == FILE + bytes(17)
    assert (image.complete, image.length_announced, image.chunk_size) == (True, False, CHUNK)
    assert "zeros that fill up the last chunk are still there" in image.notes[0]


def test_the_last_try_without_particulars_keeps_those_of_the_first() -> None:
    update = Update()
    update.server("0.02", b"u", payload=b"\0\0\x40" + len(FILE).to_bytes(4, "big") + bytes(5))
    update.begin(None)
    for piece in PIECES:
        update.send(piece)
    update.done()
    assert (update.image().data, update.image().complete) == (FILE, True)


def test_an_interrupted_update_and_the_next_one_are_two_images() -> None:
    update = Update()
    update.begin(len(FILE))
    update.send(PIECES[0])
    update.send(PIECES[1], None)
    update.begin(3 * CHUNK, letter=b"s")
    for piece in reversed(PIECES[:3]):
        update.send(piece)
    update.done()
    first, second = update.images()
    assert (first.number, first.complete, first.data, first.stored_file) == (1, False, FILE[: 2 * CHUNK], False)
    assert first.missing == ((2 * CHUNK, len(FILE)),)
    assert (second.number, second.complete, second.stored_file) == (2, True, True)
    assert second.data == b"".join(reversed(PIECES[:3]))


def test_a_refused_announcement_is_no_image() -> None:
    update = Update()
    message_id, token = update.server("0.02", b"u", payload=bytes(12))
    update.device(ACK, "5.03", message_id=message_id, token=token)
    assert update.images() == []


def test_a_capture_that_begins_within_a_slow_update_knows_no_offset() -> None:
    update = Update()
    update.begin(len(FILE))
    for piece in PIECES:
        update.send(piece)
    update.done()
    del update.lines[:6]
    image = update.image()
    assert not image.complete
    assert image.data == b"".join(PIECES[1:])
    assert "offsets count from the first chunk" in image.notes[0]


def test_a_report_of_a_missed_chunk_tells_the_offset_after_all() -> None:
    update = Update()
    update.send(PIECES[2])
    update.answer(update.chunk(PIECES[3]), None)
    update.heard(update.missed(3))
    update.send(PIECES[3])
    first, second = update.images()
    assert first.data == PIECES[2] + PIECES[3]
    assert second.data == bytes(3 * CHUNK) + PIECES[3]
    assert second.missing == ((0, 3 * CHUNK),)


# -- the fast form ------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=900), st.randoms(use_true_random=False), st.booleans())
def test_fast_chunks_in_any_order_with_copies_and_bad_ones_make_the_same_image(
    data: bytes, chance: random.Random, announced: bool
) -> None:
    pieces = list(enumerate(cut(data)))
    sent = pieces + chance.choices(pieces, k=5)
    chance.shuffle(sent)
    update = Update(server_id=0xFFFE)
    update.begin(len(data) if announced else None, fast=True)
    for index, piece in sent:
        if chance.random() < 0.2:
            update.answer(update.chunk(b"\0" + piece[1:], index=index, crc=zlib.crc32(piece) ^ 1), "4.00")
        update.chunk(piece, index=index)
    update.done()
    image = update.image()
    assert (image.fast, image.complete, image.chunks, image.repeated) == (True, True, len(pieces), 5)
    assert image.data == (data if announced else b"".join(piece for _, piece in pieces))


def test_fast_chunks_that_are_asked_for_again_fill_the_hole() -> None:
    update = Update()
    update.begin(len(FILE), fast=True)
    for index in (0, 1, 4):
        update.chunk(PIECES[index], index=index)
    update.done("4.00")
    assert (update.image().accepted, update.image().missing) == (False, ((2 * CHUNK, 4 * CHUNK),))
    update.heard(update.missed(2, 3))
    for index in (2, 3):
        update.chunk(PIECES[index], index=index)
    update.device(NON, "0.03", options=[(PATH, b"u")])  # type: ignore[arg-type]
    update.chunk(PIECES[3], index=3)  # was on its way already
    image = update.image()
    assert (image.data, image.complete, image.accepted, image.missed) == (FILE, True, True, 1)


def test_other_data_for_the_same_index_is_not_called_complete() -> None:
    update = Update()
    update.begin(CHUNK, fast=True)
    update.chunk(PIECES[0], index=0)
    update.chunk(PIECES[1], index=0)
    image = update.image()
    assert (image.complete, image.data) == (False, PIECES[1])
    assert "other contents" in image.notes[0]


# -- holes in the capture, and bounds -----------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_capture_lacks_no_wrong_image_is_called_complete(data: st.DataObject) -> None:
    """A server in the slow form, a device with every kind of trouble, and some lines that were not captured."""
    kinds = data.draw(st.lists(st.sampled_from([b"\0", b"\xff", b"\1"]), min_size=2, max_size=9))
    pieces = [kind * 16 for kind in kinds]
    update = Update()
    update.begin(len(pieces) * 16, size=16)
    at = steps = 0
    while at < len(pieces):
        trouble = data.draw(st.sampled_from(["", "", "", "4.00", "missed"])) if steps < 20 else ""
        steps += 1
        if trouble == "missed":
            update.answer(update.chunk(pieces[at]), None)
            at -= data.draw(st.integers(0, min(at, 2)))
            update.heard(update.missed(at))
        else:
            update.send(pieces[at], trouble or "2.04")
            at += not trouble
    update.done()
    whole = update.image()
    assert (whole.complete, whole.data) == (True, b"".join(pieces))
    gone = data.draw(st.sets(st.integers(0, len(update.lines) - 1), max_size=6))
    update.lines = [line for number, line in enumerate(update.lines) if number not in gone]
    for image in update.images():
        if image.complete:
            assert image.data == whole.data


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_messages_in_any_order_never_raise_and_never_claim_more_than_they_carry(data: st.DataObject) -> None:
    update = Update()
    update.begin(len(FILE), fast=data.draw(st.booleans()))
    for index, piece in enumerate(PIECES):
        update.answer(update.chunk(piece, index=data.draw(st.sampled_from([None, index]))))
        update.heard(update.missed(index))
    update.done(data.draw(st.sampled_from(["2.04", "4.00"])))
    noise = st.tuples(st.sampled_from(["device", "server"]), st.binary(max_size=30), st.sampled_from([0, 0, 16]))
    lines = st.lists(st.one_of(st.sampled_from(update.lines), noise), max_size=40)
    for image in collect_images(read(data.draw(lines))):
        absent = sum(end - start for start, end in image.missing)
        assert 0 <= absent <= image.size
        assert len(image.data) <= image.size
        assert image.complete == (image.sha256 is not None)
        if image.complete:
            assert len(image.data) == image.size


def test_what_lies_beyond_the_largest_image_is_left_out_and_counted() -> None:
    update = Update()
    update.begin(0xFFFF_FFFF, size=1024, fast=True)
    update.chunk(PIECES[0], index=0xFFFF)
    update.chunk(PIECES[0], index=0)
    image = update.image()
    assert image.data == PIECES[0]
    assert image.missing == ((CHUNK, 0xFFFF_FFFF),)
    assert image.notes[-1] == f"1 chunks were left out: more than {LARGEST_IMAGE >> 20} MiB, or too many"


def test_updates_without_end_are_counted_and_not_kept() -> None:
    update = Update()
    for _ in range(MOST_UPDATES + 3):
        update.begin(CHUNK)
        update.send(PIECES[0])
    collector = FirmwareCollector()
    for message in read(update.lines):
        collector.take(message)
    assert len(collector.images()) == MOST_UPDATES
    assert collector.dropped == 3


# -- files --------------------------------------------------------------------------------------------------


def complete() -> list[FirmwareImage]:
    return collect_images(session("photon-fast-ota").messages)


def test_a_file_is_private_and_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (path,) = save_images(complete(), tmp_path, 12)
    finally:
        os.umask(before)
    assert path == str(tmp_path / "firmware-12-1.bin")
    assert Path(path).read_bytes() == sent_by_server("photon-fast-ota")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["firmware-12-1.bin"]


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    target = tmp_path / "firmware-1-1.bin"
    target.write_bytes(b"mine")
    with pytest.raises(
        ExportError, match=r"firmware-1-1\.bin: exists already\. Nothing was written\. Try: another folder, or --force"
    ):
        save_images(complete(), tmp_path, 1)
    assert target.read_bytes() == b"mine"
    assert save_images(complete(), tmp_path, 1, force=True) == [str(target)]
    assert target.read_bytes() == sent_by_server("photon-fast-ota")


def test_force_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    (tmp_path / "firmware-1-1.bin").symlink_to(other)
    with pytest.raises(ExportError):
        save_images(complete(), tmp_path, 1)
    save_images(complete(), tmp_path, 1, force=True)
    assert other.read_bytes() == b"theirs"


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        save_images(complete(), tmp_path / "nowhere", 1)
    assert (
        str(raised.value) == f"{tmp_path / 'nowhere'}: no such folder. Make it first: mkdir -p {tmp_path / 'nowhere'}"
    )


def test_a_name_that_cannot_be_replaced_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "firmware-1-1.bin").mkdir()
    with pytest.raises(ExportError, match=r"cannot be written \(is a directory\)\. Try: another folder"):
        save_images(complete(), tmp_path, 1, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["firmware-1-1.bin"]
