"""No key is ever seen where nobody asked for it: in no output, no error, no file and no other place."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest
from audited import ROOT, Happened, run
from canaries import Secret, contents, leaks, ways_to_write
from failing import PlantedError, failing, having, report, shown
from planted import PASSWORD, Asked, Planted, everything

from analyzer import KeyRing, analyze
from analyzer.cli import main
from analyzer.commands import decrypt
from analyzer.jobs.sealed import Envelope
from analyzer.keys import Key, KeyFile, KeyFileError, SessionKey
from analyzer.keys.der import Element
from analyzer.opened import Secrets
from analyzer.outfile import hold, new_file, unfinished
from analyzer.rsa import PrivateNumbers
from analyzer.session import FrameDecryptor
from analyzer.simulate import simulate
from analyzer.simulate.keys import RsaKey, make_key
from analyzer.simulate.simulation import Simulation
from analyzer.trace import Trace


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"))


class Ran:
    """All commands, one after the other in one process, in a folder with homes and temporary folders of its own."""

    def __init__(self, planted: Planted, place: Path) -> None:
        self.work, self.home, self.temporary = (place / name for name in ("work", "home", "temporary"))
        for folder in (self.work, self.home, self.temporary, self.work / "images", self.work / "made"):
            folder.mkdir()
        self.asked = list(everything(planted, thorough=False))
        reads = {number: asked.reads for number, asked in enumerate(self.asked) if asked.reads is not None}
        before = os.umask(0)
        try:
            self.happened = run(
                [asked.words for asked in self.asked],
                self.work,
                stdin=reads,
                HOME=str(self.home),
                TMPDIR=str(self.temporary),
            )
        finally:
            os.umask(before)
        self.both: list[tuple[Asked, Happened]] = list(zip(self.asked, self.happened, strict=True))


@pytest.fixture(scope="module")
def ran(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(planted, tmp_path_factory.mktemp("ran"))


@pytest.mark.parametrize("way", ways_to_write(b"0" * 40))
def test_a_secret_is_found_however_it_is_written(way: str, planted: Planted) -> None:
    for secret in planted.secrets:
        written = ways_to_write(secret.raw)[way]
        assert leaks(b"before " + written + b" behind", [secret]) == [secret.name]


def test_a_part_of_a_secret_is_found_as_well() -> None:
    secret = Secret("p", bytes(range(3, 67)))
    for way, written in ways_to_write(secret.raw[17:43]).items():
        assert "integer" in way or leaks(written, [secret]), way
    assert not leaks(os.urandom(100_000), [secret])


def test_every_command_does_what_it_is_to_do(ran: Ran) -> None:
    assert [(asked.words, one.status, one.out) for asked, one in ran.both if one.status != asked.status] == []


def test_no_output_shows_a_secret(ran: Ran, planted: Planted) -> None:
    seen = [(asked.words, leaks(one.out, planted.secrets)) for asked, one in ran.both]
    assert [both for both in seen if both[1]] == []


def test_no_file_shows_a_secret_but_those_that_are_for_them(ran: Ran, planted: Planted) -> None:
    telling = {str(ran.work / asked.tells) for asked in ran.asked if asked.tells is not None}
    shown = {str(path) for path, content in contents(ran.work.parent) if leaks(content, planted.secrets)}
    assert shown == telling


def test_what_holds_secrets_or_opened_messages_is_its_owners_alone(ran: Ran) -> None:
    private = [*(asked.tells for asked in ran.asked if asked.tells), "plain.pcapng", "all.pcapng", "posted.pcapng"]
    files = [ran.work / name for name in private]
    files += [*(ran.work / "images").iterdir(), *(ran.work / "made" / "keys").iterdir(), ran.work / "made/a.truth.json"]
    files += [path for ring in ran.work.glob("ring-*") for path in ring.iterdir()]
    assert len(files) > 15
    assert {str(path): oct(mode) for path in files if (mode := stat.S_IMODE(path.stat().st_mode)) != 0o600} == {}
    assert stat.S_IMODE((ran.work / "made" / "keys").stat().st_mode) == 0o700


def test_nothing_is_written_but_what_was_named(ran: Ran) -> None:
    """Not even for a moment: Python told of each file that was opened, made, moved or removed."""
    elsewhere = []
    for asked, one in ran.both:
        named = [str(ran.work / name) for name in asked.outputs]
        for path in set(one.written):
            inside = any(path == name or path.startswith((f"{name}/", f"{name}.")) for name in named)
            tables = "--format parquet" in " ".join(asked.words) and path.startswith(f"{ran.work}/.sparkshark-")
            spool = asked.reads is not None and path.startswith(f"{ran.temporary}/sparkshark-")
            nameless = asked.words[0] == "redact" and path.startswith((str(ran.temporary), "/proc/self/fd/"))  # no name
            if not (inside or tables or spool or nameless or path.startswith(os.devnull)):
                elsewhere.append((asked.words, path))
    assert elsewhere == []
    assert [*ran.home.rglob("*"), *ran.temporary.rglob("*")] == []


def test_nobody_is_called_and_nothing_is_started(ran: Ran) -> None:
    assert [(asked.words, one.network) for asked, one in ran.both if one.network] == []
    assert [(asked.words, one.started) for asked, one in ran.both if one.started and not asked.starts] == []
    # What scapy asks the kernel for when it is loaded: which interfaces and routes there are.
    assert {asked.words[0] for asked, one in ran.both if one.kernel} == {"simulate"}


def test_what_is_unpickled_is_our_own(ran: Ran) -> None:
    """Nothing that came from a file: conversations that were packed, or copied, in this very process."""
    names = {name for one in ran.happened for name in one.unpickled}
    assert {name for name in names if not name.startswith("analyzer.")} <= UNPICKLED


UNPICKLED = {"array.array", "array._array_reconstructor", "builtins.getattr", "collections.deque"}


# -- when something goes wrong ---------------------------------------------------------------------------------------


def opening(planted: Planted) -> Trace:
    """Read every kind of key, and open with them all that can be opened."""
    ring = KeyRing.load(
        planted.keys, planted.locked, password=PASSWORD, keylogs=[planted.log], session_keys=[planted.session]
    )
    return analyze(planted.captures / "healthy-full.pcap", keys=ring)


@pytest.fixture(scope="module")
def hands(planted: Planted) -> tuple[set[CodeType], dict[type, list[object]]]:
    return having(planted.secrets, lambda: opening(planted))


def test_nothing_that_is_printed_shows_a_secret(
    hands: tuple[set[CodeType], dict[type, list[object]]], planted: Planted
) -> None:
    """Whatever passes through the hands of a function: keys, ciphers, connections, the keys of the other side."""
    _, objects = hands
    simulation = simulate("healthy")
    made = [Secret("made", content) for name, content in simulation.keys.items() if "pub" not in name]
    key = make_key(1, "some", 1024)
    made += [Secret("p", key.p.to_bytes(64, "big")), Secret("q", key.q.to_bytes(64, "big"))]
    objects = {**objects, Simulation: [simulation], RsaKey: [key], Envelope: [Envelope(KeyRing.load(planted.keys))]}
    assert {SessionKey, Key, KeyRing, KeyFile, PrivateNumbers, Secrets, FrameDecryptor, Element} <= set(objects)
    secrets = [*planted.secrets, *made]
    seen = {
        kind.__qualname__: found
        for kind, some in objects.items()
        if (found := leaks(b"\n".join(shown(one) + str(one).encode() + f"{one}".encode() for one in some), secrets))
    }
    assert seen == {}


def test_no_error_keeps_a_secret(hands: tuple[set[CodeType], dict[type, list[object]]], planted: Planted) -> None:
    """Each function that has one in hand fails; then everything is looked at that the error has with it."""
    functions, _ = hands
    assert {"_decrypted", "read_key_log", "open_offer", "id_order_of", "_pkcs1_private"} <= {
        code.co_name for code in functions
    }
    errors = {code: failing(code, lambda: opening(planted)) for code in functions}
    assert {type(error) for error in errors.values()} <= {PlantedError, KeyFileError}
    kept = {
        code.co_qualname: found
        for code, error in errors.items()
        if error is not None and (found := leaks(report(error), planted.secrets))
    }
    assert kept == {}


@pytest.mark.parametrize("debug", [False, True])
def test_no_command_that_fails_tells_a_secret(
    debug: bool, planted: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["decrypt", str(planted.captures), "--session-key", planted.session, "--keys", str(planted.keys)]
    if debug:
        monkeypatch.setenv("SPARKSHARK_DEBUG", "1")
    code = decrypt._text.__code__
    said: list[bytes] = []
    error = failing(code, lambda: main(words))
    assert (type(error) is PlantedError) is debug
    if error is not None:
        said.append(report(error))
    out, err = capsys.readouterr()
    assert debug or "internal error: PlantedError in " in err
    assert leaks(b"\n".join([*said, out.encode(), err.encode()]), planted.secrets) == []


def test_a_process_that_holds_keys_leaves_no_memory_in_a_file(planted: Planted) -> None:
    program = (
        "import resource, sys\n"
        "from analyzer.cli import main\n"
        "limit = resource.RLIMIT_CORE\n"
        "for words in (['keys', sys.argv[1]], ['analyze', sys.argv[2], '--keys', sys.argv[1]]):\n"
        "    resource.setrlimit(limit, (4096, resource.getrlimit(limit)[1]))\n"
        "    main(['explain', 'SPK301'])\n"
        "    before = resource.getrlimit(limit)[0]\n"
        "    main(words)\n"
        "    print(before, resource.getrlimit(limit)[0], file=sys.stderr)\n"
    )
    words = [str(planted.keys), str(planted.captures / "healthy-full.pcap")]
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["4096 0", "4096 0"]


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["older", "symbolic", "hard", "dangling"])
def test_what_stood_there_gets_no_secret(there: str, planted: Planted, tmp_path: Path) -> None:
    """Whoever could read the old file, or knows it by another name, does not get the new one."""
    log, images, made, other = tmp_path / "log", tmp_path / "images", tmp_path / "made.pcap", tmp_path / "other"
    images.mkdir()
    (tmp_path / "keys").mkdir()
    places = [log, images / "firmware-1-1.bin", tmp_path / "made.truth.json", tmp_path / "keys" / "core-a.der"]
    other.write_bytes(b"kept")
    for place in places:
        if there == "older":
            place.write_bytes(b"old")
            place.chmod(0o644)
        elif there == "hard":
            place.hardlink_to(other)
        else:
            place.symlink_to(other if there == "symbolic" else tmp_path / "nothing")
    with_keys = [str(planted.captures / "photon-fast-ota.pcap"), "--keys", str(planted.keys), "--force"]
    before = os.umask(0)
    try:
        assert main(["decrypt", *with_keys, "--keylog-out", str(log), "--firmware", str(images), "--quiet"]) == 0
        assert main(["simulate", "healthy", "-o", str(made), "--force", "--quiet"]) == 0
    finally:
        os.umask(before)
    assert other.read_bytes() == b"kept"
    assert not os.path.lexists(tmp_path / "nothing")
    for place in places:
        found = place.lstat()
        assert (stat.S_IMODE(found.st_mode), stat.S_ISREG(found.st_mode), found.st_nlink) == (0o600, True, 1)


def test_a_file_that_somebody_else_is_writing_stays(tmp_path: Path) -> None:
    """On a disk that several machines share, another's process may have the number of this one."""
    path = tmp_path / "report"
    with open(unfinished(path), "wb") as theirs:
        theirs.write(b"of somebody else")
        theirs.flush()
        hold(theirs.fileno())
        with pytest.raises(FileExistsError), new_file(path) as stream:
            stream.write(b"ours")
    assert Path(unfinished(path)).read_bytes() == b"of somebody else"
    assert not path.exists()
