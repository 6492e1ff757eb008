"""``sparkshark decrypt`` as a user runs it: the screens, the exports, what is said when nothing opens."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from judging import CAPTURES, NAMES, truth
from keyed import KEYS

from analyzer.cli import main
from analyzer.keys import KeyRing, read_key_log

ROOT = CAPTURES.parent
BLOB = truth("healthy-full")["sessions"][0]["session_key"]["hex"]


@pytest.fixture(autouse=True)
def in_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CAPTURES)


Screen = pytest.CaptureFixture[str]


def run(screen: Screen, *words: str | Path) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = screen.readouterr()
    return status, out, err


def decrypt(screen: Screen, *words: str | Path) -> tuple[int, str, str]:
    return run(screen, "decrypt", *words)


# -- the screens ---------------------------------------------------------------------------------------------------

HEALTHY = """\
✓ 67 of 67 messages opened · device 48ff6d06507b573081350e87 · core-a.der
 packet     time     message           content                        answers
      9  0.150 s  →  Hello             product 0, firmware 65535
     10  0.204 s  ←  Hello
     12  0.300 s  →  Subscribe         greet, everyone's events
     13  0.347 s  ←  SubscribeAck                                     12, 48 ms
     15  0.500 s  →  Subscribe         alarm, own devices' events
     16  0.507 s  ←  Describe
     18  0.507 s  →  DescribeResponse  5 functions, 6 variables       16, 0.1 ms
     19  0.548 s  ←  SubscribeAck                                     15, 47 ms
     22  0.699 s  →  Subscribe         peer/door, 53ff6c065067544835331287
     24  0.746 s  ←  SubscribeAck                                     22, 47 ms
     26  0.907 s  ←  VariableRequest   armed
     28  0.907 s  →  VariableValue     armed = true                   26, 0.1 ms
     30  1.000 s  →  Event             temp = "21.5", public, 60 s
     32  1.050 s  ←  EventAck 4.00     this server's habit, harmless  30, 50 ms
     34  1.205 s  ←  VariableRequest   count
"""

UPDATE = """\
     29  1.574 s  ←  UpdateBegin       62.0 kB in chunks of 256 bytes
     31  1.574 s  →  UpdateBeginAck                                   29, 88 µs
     32  1.574 s  →  UpdateReady       one chunk at a time            29, 0.1 ms
34–1004  1.589 s  ←  243 × Chunk       0 missed, CRC 243 of 243, 18.5 kB/s
   1006  4.946 s  ←  UpdateDone        SHA-256 b42798a4...329e5a08
   1007  4.946 s  →  UpdateDoneAck                                   1006, 68 µs
"""


def test_healthy_session_reads_as_promised(capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/")
    assert (status, err) == (0, "")
    assert out.startswith(HEALTHY)
    assert len(out.splitlines()) == 2 + 67
    assert max(map(len, out.splitlines())) <= 80


def test_an_update_is_one_row_unless_all_are_asked_for(capsys: Screen) -> None:
    _, out, _ = decrypt(capsys, "ota-complete.pcap", "--keys", "keys/")
    assert UPDATE in out
    _, out, _ = decrypt(capsys, "ota-complete.pcap", "--keys", "keys/", "--all")
    assert len(out.splitlines()) == 2 + 746
    assert sum(" Chunk " in line for line in out.splitlines()) == 243


def test_a_session_with_a_hole_says_how_much_opened(capsys: Screen) -> None:
    _, out, _ = decrypt(capsys, "capture-gap.pcap", "--keys", "keys/", "--quiet")
    assert out == "~ 56 of 58 messages opened · device 48ff72065078423545352187 · core-b.der\n"


@pytest.mark.parametrize("name", NAMES)
def test_no_row_is_wider_than_80_columns_in_a_pipe(name: str, capsys: Screen) -> None:
    _, out, _ = decrypt(capsys, truth(name)["capture"], "--keys", "keys/", "--all")
    assert max(map(len, out.splitlines()), default=0) <= 80


def test_a_wide_terminal_shows_more_of_the_content() -> None:
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "analyzer", "decrypt", "healthy-full.pcap", "--keys", "keys/", "--no-color"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "140", "PYTHONIOENCODING": "utf-8"}
        process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment, cwd=CAPTURES)
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        process.communicate()
    finally:
        os.close(ours)
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert any(80 < len(line) <= 140 for line in lines)
    assert any('longtext = "The quick brown fox' in line and line.endswith("66, 0.1 ms") for line in lines)


def test_several_sessions_are_told_one_after_another(capsys: Screen) -> None:
    _, out, _ = decrypt(capsys, "healthy-full.pcap", "photon-fast-ota.pcap", "--keys", "keys/", "--quiet")
    assert out == (
        "✓ connection 1: 67 of 67 messages opened · device 48ff6d06507b573081350e87 · core-a.der\n"
        "\n"
        "✓ connection 2: 248 of 248 messages opened · device 23003a001747343433313338 · photon-a.der\n"
    )


def test_one_conversation_of_many(capsys: Screen) -> None:
    status, out, _ = decrypt(capsys, "two-devices-background.pcap", "--keys", "keys/", "--conversation", "1", "--quiet")
    assert (status, out.split(" · ")[0]) == (0, "✓ 25 of 25 messages opened")
    status, out, err = decrypt(capsys, "two-devices-background.pcap", "--keys", "keys/", "--conversation", "9")
    assert (status, out) == (2, "")
    assert err.startswith("sparkshark: --conversation 9: this capture has 4 (1–4).")


# -- when something stays closed -----------------------------------------------------------------------------------


def test_a_key_that_does_not_fit(capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/core-b.der")
    assert (status, out) == (1, "")
    assert err == (
        "✕ 0 of 67 messages opened: core-b.der (e990f45f) does not open packet 8.\n"
        "  It is another device's key, or the server used another key for this device.\n"
        "  Which: sparkshark analyze healthy-full.pcap --keys keys/core-b.der\n"
    )


def test_what_stays_closed_names_the_connection_what_was_tried_and_what_would_open_it(capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "two-devices-background.pcap", "--device-key", "keys/core-b.der", "--quiet")
    assert (status, out) == (0, "✓ 25 of 25 messages opened · core-b.der\n")
    assert err.startswith(
        "~ connections 2, 3 and 4: no login, so no message to open: core-b.der (e990f45f) does not open"
    )
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--server-key", "keys/server.pem")
    assert (status, out) == (1, "")
    assert "packet 8 opens with the device's private key only" in err
    assert "To open it: --device-key FILE, --keylog FILE or --session-key HEX." in err
    status, out, err = decrypt(capsys, "mid-session.pcap", "--keys", "keys/")
    assert (status, out) == (1, "")
    assert "✕ 0 of 21 messages opened: the capture begins after the login" in err
    assert "No RSA key can open it. Only --session-key HEX or --keylog FILE can." in err


def test_a_session_key_that_does_not_fit_is_not_repeated(capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--session-key", "ab" * 40)
    assert (status, out) == (1, "")
    assert "The session keys given do not fit either." in err
    assert "abab" not in err
    assert "--session-key HEX" in err


def test_nothing_to_open(capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "coap-over-tcp.pcap", "--keys", "keys/")
    assert (status, out) == (1, "")
    assert err == "sparkshark: no Spark connection in this capture; nothing to open.\n"


# -- formats -------------------------------------------------------------------------------------------------------


def test_json_lines_and_table_hold_every_message(capsys: Screen) -> None:
    told = truth("healthy-full")["sessions"][0]
    sent = sorted(line["hex"] for way in ("c2s", "s2c") for line in told[way])
    _, out, _ = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--format", "json")
    document = json.loads(out)
    (conversation,) = document["conversations"]
    assert sorted(m["plaintext"] for m in conversation["messages"]) == sent
    assert conversation["frames"] == {"device": 34, "server": 33, "opened": 67}
    assert conversation["device"]["id"] == told["device_id"]
    assert conversation["handshake"]["identity"]["opened"] is True
    assert conversation["handshake"]["identity"]["nonce_matches"] is True
    assert conversation["handshake"]["session"]["opened"] is True
    assert conversation["handshake"]["session"]["signature"] == "valid"
    assert conversation["handshake"]["session"]["key"] is None

    _, out, _ = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--format", "jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert sorted(line["plaintext"] for line in lines if line["kind"] == "message") == sent
    assert {line["kind"] for line in lines} >= {"capture", "conversation", "message", "finding"}

    _, out, _ = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert sorted(row["plaintext"] for row in rows) == sent
    assert rows[0]["name"] == "Hello"


def test_json_tells_of_the_firmware(capsys: Screen) -> None:
    _, out, _ = decrypt(capsys, "ota-complete.pcap", "--keys", "keys/", "--format", "json")
    (image,) = json.loads(out)["conversations"][0]["firmware"]
    assert image == {
        "size": 62000,
        "sha256": "b42798a4003990273e827d1aaade1f9dda17cc19cfb83ecb9bd5649f329e5a08",
        "complete": True,
        "chunks": 243,
        "missing": [],
    }


def test_json_says_null_where_nothing_was_tried(capsys: Screen) -> None:
    _, out, _ = run(capsys, "analyze", "healthy-full.pcap", "--format", "json")
    handshake = json.loads(out)["conversations"][0]["handshake"]
    assert (handshake["identity"]["opened"], handshake["identity"]["nonce_matches"]) == (None, None)
    assert (handshake["session"]["opened"], handshake["session"]["signature"]) == (None, "not-checked")
    words = ("analyze", "healthy-full.pcap", "--format", "json", "--keys", "keys/core-b.der")
    _, out, _ = run(capsys, *words, "--keys", "keys/other-server.pem")
    handshake = json.loads(out)["conversations"][0]["handshake"]
    assert (handshake["identity"]["opened"], handshake["session"]["opened"]) == (False, False)
    # The device accepted the signature, so a key that does not fit it is merely another server's.
    assert handshake["session"]["signature"] == "not-checked"


def test_json_findings_carry_their_premise(capsys: Screen) -> None:
    words = ("analyze", "key-mismatch-retries.pcap", "--format", "json", "--keys", "keys/core-a.der")
    _, out, _ = run(capsys, *words)
    (finding,) = (f for f in json.loads(out)["findings"] if f["code"] == "SPK301")
    assert finding["because"].startswith("if core-a.der is the key inside this device")


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_key_log_opens_the_same_again(tmp_path: Path, capsys: Screen) -> None:
    log = tmp_path / "session.keys"
    old = os.umask(0)
    try:
        status, first, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--keylog-out", log)
    finally:
        os.umask(old)
    assert status == 0
    assert "1 session key, mode 0600" in err
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    told = truth("healthy-full")["sessions"][0]
    assert list(read_key_log(log.read_text()).by_nonce) == [bytes.fromhex(told["nonce"])]
    status, second, err = decrypt(capsys, "healthy-full.pcap", "--keylog", log)
    assert status == 0
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert second.startswith("✓ 67 of 67 messages opened · the key log\n")
    # It is never written over, unless that is asked for; then it is closed to others, whatever it was before.
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--keylog-out", log)
    assert (status, out) == (2, "")
    assert "exists already. Nothing was written. Try: another name, or --force" in err
    log.chmod(0o644)
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--keylog-out", log, "--force")
    assert (status, stat.S_IMODE(log.stat().st_mode)) == (0, 0o600)


def test_a_key_log_is_not_written_when_it_would_be_empty(tmp_path: Path, capsys: Screen) -> None:
    log = tmp_path / "session.keys"
    status, _, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/core-b.der", "--keylog-out", log)
    assert status == 1
    assert "not written: nothing opened" in err
    status, _, err = decrypt(capsys, "healthy-full.pcap", "--session-key", BLOB[:32], "--keylog-out", log)
    assert status == 0
    assert "not written: only the AES key is known" in err
    assert not log.exists()


def test_plain_capture_and_firmware_are_written(tmp_path: Path, capsys: Screen) -> None:
    plain, images = tmp_path / "plain.pcapng", tmp_path / "images"
    images.mkdir()
    words = ("ota-complete.pcap", "--keys", "keys/", "-w", plain, "--firmware", images)
    status, _, err = decrypt(capsys, *words)
    assert status == 0
    assert f"{plain}: 746 messages, as plain CoAP." in err
    assert f"{images}/firmware-1-1.bin: 62.0 kB, 243 chunks, SHA-256 b42798a4" in err
    assert (images / "firmware-1-1.bin").stat().st_size == 62000
    read = ["tshark", "-r", str(plain), "-Y", "coap", "-T", "fields", "-e", "coap.code"]
    codes = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert len(codes.splitlines()) == 746
    status, out, err = decrypt(capsys, *words)
    assert (status, out) == (2, "")
    assert "exists already" in err


def test_files_are_written_even_when_the_reader_of_the_table_leaves(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pcapng"
    command = f"{sys.executable} -m analyzer decrypt ota-complete.pcap --all --keys keys/ -w {plain} | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["sh", "-c", command]
    done = subprocess.run(words, cwd=CAPTURES, capture_output=True, text=True, env=environment, check=True)
    assert "746 of 746" in done.stdout
    assert "Traceback" not in done.stderr
    assert plain.stat().st_size > 746 * 100


def test_a_folder_for_firmware_must_exist(tmp_path: Path, capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "ota-complete.pcap", "--keys", "keys/", "--firmware", tmp_path / "none")
    assert (status, out) == (2, "")
    assert "the folder does not exist. Make it first: mkdir -p" in err
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", "keys/", "--firmware", tmp_path)
    assert status == 0
    assert "no firmware update in this capture" in err
    assert list(tmp_path.iterdir()) == []


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--session-key", "0123456789abcdefg123"),
            'sparkshark: --session-key: character 17 is "g", not a hex digit. 80 digits are wanted'
            " (or 32 for the AES key alone).",
        ),
        (("--session-key", "ab"), "sparkshark: --session-key: 2 hex digits. 80 digits are wanted"),
        (
            ("--device-key", "keys/core-a.dre"),
            "sparkshark: keys/core-a.dre: no such file. Did you mean keys/core-a.der?",
        ),
        (("--keys", "README.md"), "sparkshark: README.md: "),
        ((), "sparkshark: decrypt: no key was given."),
    ],
)
def test_errors_about_keys_are_one_line(words: tuple[str, ...], line: str, capsys: Screen) -> None:
    status, out, err = decrypt(capsys, "healthy-full.pcap", *words)
    assert (status, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_folder_without_keys(tmp_path: Path, capsys: Screen) -> None:
    for name in ("notes.txt", "more.txt", "photo.jpg"):
        (tmp_path / name).write_text("nothing here")
    status, out, err = decrypt(capsys, "healthy-full.pcap", "--keys", tmp_path)
    assert (status, out) == (2, "")
    assert err == (
        f"sparkshark: --keys {tmp_path}: 3 files, none of them a key (first: more.txt). Without --keys there is still a"
        " verdict.\n"
    )


def test_an_encrypted_key_needs_the_right_password(tmp_path: Path, capsys: Screen) -> None:
    locked, secret = tmp_path / "core.pem", tmp_path / "secret"
    command = [
        "openssl",
        "rsa",
        "-aes128",
        "-passout",
        "pass:right",
        "-in",
        f"{KEYS / 'core-a.pem'}",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    secret.write_text("right\n")
    words = ("healthy-full.pcap", "--device-key", locked, "--quiet")
    status, out, _ = decrypt(capsys, *words, "--password-file", secret)
    assert (status, out) == (0, "✓ 67 of 67 messages opened · core.pem\n")
    secret.write_text("wrong\n")
    status, out, err = decrypt(capsys, *words, "--password-file", secret)
    assert (status, out) == (2, "")
    assert err == (
        f"sparkshark: {locked}: the password does not open this key. Try again, or: openssl rsa -in {locked} -out"
        " plain.pem\n"
    )
    status, out, err = decrypt(capsys, *words)
    assert (status, out) == (2, "")
    assert "--password-file FILE" in err


# -- secrets -------------------------------------------------------------------------------------------------------


def _canaries() -> list[str]:
    numbers = KeyRing.load(KEYS / "core-a.der").device_private[0].secret
    assert numbers is not None
    blob = bytes.fromhex(BLOB)
    parts = [blob, blob[:16], blob[16:32], blob[32:]]
    parts += [value.to_bytes((value.bit_length() + 7) // 8, "big") for value in (numbers.d, numbers.p, numbers.q)]
    return [part.hex() for part in parts] + [str(numbers.d), str(numbers.p)]


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv"])
def test_no_secret_is_printed_unless_asked_for(form: str, tmp_path: Path, capsys: Screen) -> None:
    words = ("healthy-full.pcap", "--keys", "keys/core-a.der", "--server-key", "keys/server.pem", "--format", form)
    _, out, err = decrypt(capsys, *words, "-w", tmp_path / "plain.pcapng", "--keylog-out", tmp_path / "log")
    exported = (tmp_path / "plain.pcapng").read_bytes()
    for canary in _canaries():
        assert canary not in (out + err).lower()
        assert canary.encode() not in exported
        if len(canary) % 2 == 0 and not canary.isdecimal():
            assert bytes.fromhex(canary) not in exported
    assert BLOB in (tmp_path / "log").read_text()


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "markdown"])
def test_analyze_prints_no_secret_either(form: str, capsys: Screen) -> None:
    words = ("healthy-full.pcap", "--keys", "keys/core-a.der", "--session-key", BLOB, "--format", form)
    _, out, err = run(capsys, "analyze", *words)
    for canary in _canaries():
        assert canary not in (out + err).lower()


def test_session_keys_show_when_asked_for(capsys: Screen) -> None:
    words = ("healthy-full.pcap", "--keys", "keys/", "--format", "json", "--show-secrets")
    _, out, _ = decrypt(capsys, *words)
    assert json.loads(out)["conversations"][0]["handshake"]["session"]["key"] == BLOB


def test_an_export_that_finds_no_room_costs_itself_alone(tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    plain, log = tmp_path / "plain.pcapng", tmp_path / "keys.log"
    words = ["decrypt", "healthy-full.pcap", "--keys", "keys/core-a.der", "-w", str(plain), "--keylog-out", str(log)]
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", *words],
        cwd=CAPTURES,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        preexec_fn=little_room,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("✓ 67 of 67 messages opened"), "the table is still delivered"
    assert log.read_text().startswith("SPARK_SESSION "), "and so is the other file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.log"], "nothing is left of the one that failed"
    lines = done.stderr.splitlines()
    assert sum("plain.pcapng: cannot be written" in line for line in lines) == 1
    assert "Traceback" not in done.stderr
