"""What `sparkshark keys` says about each file: rows of plain sentences, and their layout as text.

The rows are data, so that every output format says the same. A paragraph that speaks of one key carries that
key's fingerprint; a command stands on its own line, safe to paste.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from analyzer.catalogue import SPARK_PORT
from analyzer.cells import NARROW, WIDTH, cells, left
from analyzer.keys.inspect import Password
from analyzer.keys.model import Key, KeyFile, KeyFileError, KeyPart
from analyzer.keys.ring import files_in, inspect_path, pair_name
from analyzer.wording import plural, printable, wrap

FILE_COLUMN: Final = 18
TEXT_COLUMN: Final = 50
"""Widths of the first two columns; with mark and fingerprint they come to 78 of the 80 that a screen has."""
BEHIND: Final = WIDTH - 2 - FILE_COLUMN - TEXT_COLUMN
"""Columns behind those for a fingerprint."""
NAMES_LISTED: Final = 5
"""Files of a folder that are no keys, and are named."""

_DUMP_NAMES: Final = {
    "flash-dump": "flash dump, {size} bytes",
    "dct-dump": "whole Photon configuration (DCT), {size} bytes",
}
_WHOLE_FLASH: Final = 2_097_152


class Mark(Enum):
    """How a row begins. The value is the sign; `ascii` the one for terminals without it."""

    GOOD = "✓"
    WARNING = "~"
    BAD = "✕"
    UNKNOWN = "?"

    @property
    def ascii(self) -> str:
        """The same without UTF-8."""
        return {"✓": "ok", "✕": "x"}.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences, the fingerprint of the key they are about, and whether it is a command to type."""

    text: str
    key: str | None = None
    command: bool = False


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What there is to say about one file. ``file`` is None for the row about all files that are no keys."""

    mark: Mark
    name: str
    paragraphs: tuple[Paragraph, ...]
    file: KeyFile | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the row for JSON. It holds public facts only."""
        file = self.file
        return {
            "file": self.name,
            "state": self.mark.name.lower(),
            "kind": file.kind if file else None,
            "bytes": file.size if file else None,
            "reasons": list(file.reasons) if file else [],
            "keys": [_part_dict(part) for part in file.parts] if file else [],
            "text": [paragraph.text for paragraph in self.paragraphs],
        }


def keys_report(paths: Iterable[str | os.PathLike[str]], password: Password = None) -> list[KeyRow]:
    """Inspect files and folders and say what each is, what the firmware makes of it, and what pairs.

    The public half of a key follows its private file; otherwise the order is that of ``paths``. Files in folders
    that are no keys share one row at the end. Raises `KeyFileError` for a named path that cannot be read and for
    a wrong password.
    """
    files: list[KeyFile] = []
    others: list[KeyFile] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(inspect_path(path, password))
            continue
        for name in files_in(path):
            file = _inspected(name, password)
            (others if file.kind in ("text", "unknown", "capture", "empty") else files).append(file)
    files = _public_halves_after_private(files)
    rows = [_row(file, files) for file in files]
    if others:
        names = ", ".join(os.path.basename(file.name) for file in others[:NAMES_LISTED])
        more = f" and {len(others) - NAMES_LISTED:,} more" if len(others) > NAMES_LISTED else ""
        text = f"no {'key' if len(others) == 1 else 'keys'}: {names}{more}"
        rows.append(KeyRow(Mark.UNKNOWN, plural(len(others), "other file"), (Paragraph(text),)))
    return rows


def render_keys(rows: Iterable[KeyRow], width: int = WIDTH, *, ascii_only: bool = False) -> str:
    """Lay the rows out in three columns. A name too long for its column gets a line of its own; so does every name,
    with what it is below, where the screen is too narrow for columns.
    """
    mark_width = 3 if ascii_only else 2
    narrow = width < NARROW
    indent = " " * (mark_width + (2 if narrow else FILE_COLUMN))
    text_column = width - (WIDTH - TEXT_COLUMN)
    lines = [" " * mark_width + "file".ljust(FILE_COLUMN) + "what it is".ljust(text_column) + "key"]
    if narrow:
        lines = [" " * mark_width + "file, what it is, and the key"]
    for row in rows:
        mark = (row.mark.ascii if ascii_only else row.mark.value).ljust(mark_width)
        name = printable(os.path.basename(row.name))
        body = [
            line
            for paragraph in row.paragraphs
            for line in (_narrow_lines if narrow else _paragraph_lines)(paragraph, width - len(indent))
        ]
        first = mark + left(name, FILE_COLUMN)
        if narrow or cells(name) >= FILE_COLUMN:
            lines += wrap(name, width, first=mark, then=" " * mark_width)
            first = indent
        lines += [(first if at == 0 else indent) + line for at, line in enumerate(body)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _paragraph_lines(paragraph: Paragraph, width: int) -> list[str]:
    if paragraph.command:
        return [f"  {paragraph.text}"]
    text_column = width - BEHIND
    lines = wrap(paragraph.text, width if paragraph.key is None else text_column - 1) or [""]
    if paragraph.key is not None:
        lines[-1] = left(lines[-1], text_column) + paragraph.key
    return lines


def _narrow_lines(paragraph: Paragraph, width: int) -> list[str]:
    if paragraph.command:
        return [f"  {paragraph.text}"]
    return wrap(paragraph.text + (f" [{paragraph.key}]" if paragraph.key else ""), width)


# --- one file ---------------------------------------------------------------------------------------------


def _inspected(path: str, password: Password) -> KeyFile:
    try:
        return inspect_path(path, password)
    except KeyFileError as error:
        # In a folder one file that stays closed must not hide the others.
        return KeyFile(path, 0, "encrypted", (), ("encrypted_pem",), str(error).removeprefix(f"{path}: "))


def _row(file: KeyFile, files: list[KeyFile]) -> KeyRow:
    if not file.parts:
        mark = Mark.UNKNOWN if file.kind in ("encrypted", "text", "unknown", "capture", "empty") else Mark.BAD
        return KeyRow(mark, file.name, (Paragraph(file.remark), *_advice(file)), file)
    if file.kind in _DUMP_NAMES:
        return _dump_row(file)
    mark, paragraphs = _key_paragraphs(file, file.parts[0], files)
    more = [
        Paragraph(f"and {_described(part.key)}", part.key.fingerprint)
        for part in file.parts[1:]
        if part.key.n != file.parts[0].key.n
    ]
    return KeyRow(mark, file.name, (*paragraphs, *more, *_advice(file)), file)


def _advice(file: KeyFile) -> list[Paragraph]:
    paragraphs = [Paragraph(file.advice)] if file.advice else []
    return paragraphs + [Paragraph(command, command=True) for command in file.commands]


def _dump_row(file: KeyFile) -> KeyRow:
    name = _DUMP_NAMES[file.kind].format(size=f"{file.size:,}")
    if file.size == _WHOLE_FLASH:
        name = f"whole flash chip, {file.size:,} bytes"
    paragraphs = [Paragraph(f"{name}. Usable; holds")]
    mark = Mark.WARNING
    for part in file.parts:
        at = f"0x{part.address:04x}" if part.address is not None else f"byte {part.offset:,}"
        text = f"a {_described(part.key)} at {at}"
        if part.key.private and part.firmware is not None and not part.firmware.ok:
            text += f"; this firmware misreads it: {'; '.join(part.firmware.differences)} (SPK306)"
            mark = Mark.BAD
        paragraphs += [Paragraph(text, part.key.fingerprint), *_address(part)]
    paragraphs += [Paragraph(file.remark)] if file.remark else []
    return KeyRow(mark, file.name, (*paragraphs, *_advice(file)), file)


def _described(key: Key) -> str:
    half = "private" if key.private else "public"
    if key.role == "other":
        return f"{half} RSA key of {key.bits:,} bits"
    return f"{key.role} {half} key"


def _key_paragraphs(file: KeyFile, part: KeyPart, files: list[KeyFile]) -> tuple[Mark, list[Paragraph]]:
    key = part.key
    if "certificate" in file.reasons:
        return Mark.BAD, [
            Paragraph(
                f"certificate around a {_described(key)}: a device cannot use it. Take the key out:", key.fingerprint
            ),
            Paragraph(_certificate_command(file, part), command=True),
        ]
    if key.role == "other":
        text = f"RSA key of {key.bits:,} bits: a device has 1,024, a server 2,048; no part here fits it"
        return Mark.BAD, [Paragraph(text, key.fingerprint)]
    if file.kind == "truncated":  # of a private key that is cut short the front is left, and that is public
        text = f"{key.role} private key, {file.remark}; only its public half can be seen"
        return Mark.BAD, [Paragraph(text, key.fingerprint)]
    if key.role == "server":
        return _server_paragraphs(file, part)
    if key.private:
        return _device_private_paragraphs(file, part)
    return _device_public_paragraphs(file, key, files)


def _device_private_paragraphs(file: KeyFile, part: KeyPart) -> tuple[Mark, list[Paragraph]]:
    key, reading = part.key, part.firmware
    print_ = key.fingerprint
    if "damaged" in file.reasons:
        return Mark.BAD, [Paragraph("device private key, damaged: its numbers contradict each other", print_)]
    if part.encoding == "pkcs8" and part.converted is not None and not part.converted.ok:
        reading = part.converted
    elif part.encoding == "pkcs8":
        text = "device private key as PKCS#8: usable here, but this firmware misreads that form. Convert it:"
        return Mark.WARNING, [Paragraph(text, print_), Paragraph(_private_command(file, part), command=True)]
    if reading is not None and not reading.ok:
        text = (
            "device private key, correct, but this firmware misreads it: "
            f"{'; '.join(reading.differences)} ({'SPK307' if 'exponent' in file.reasons else 'SPK306'})"
        )
        return Mark.BAD, [
            Paragraph(text, print_),
            Paragraph("Make another: particle keys doctor DEVICE_ID"),
        ]
    if "pem_in_der" in file.reasons:
        text = "device private key, but as PEM text, which a device misreads. Convert it before loading:"
        return Mark.WARNING, [Paragraph(text, print_), Paragraph(_private_command(file, part), command=True)]
    if part.pem:
        return Mark.GOOD, [Paragraph("device private key as PEM text; for the device itself convert it to DER", print_)]
    slot = f" ({file.size:,} bytes read from its slot)" if file.kind == "slot-dump" else ""
    return Mark.GOOD, [Paragraph(f"device private key{slot}; this firmware can read it", print_)]


def _device_public_paragraphs(file: KeyFile, key: Key, files: list[KeyFile]) -> tuple[Mark, list[Paragraph]]:
    print_ = key.fingerprint
    private = [other for other in files if any(each.private and each.role == "device" for each in other.keys)]
    fitting = [other for other in private if any(each.n == key.n and each.private for each in other.keys)]
    if fitting:
        before = files[files.index(file) - 1] if files.index(file) else None
        near = before in fitting or (before is not None and any(each.n == key.n for each in before.keys))
        owner = "its" if near else f"{os.path.basename(fitting[0].name)}'s"
        return Mark.GOOD, [Paragraph(f"{owner} public half: what the server needs", print_)]
    if not private:
        return Mark.GOOD, [Paragraph("device public key: what the server needs", print_)]
    text = "device public key; no private key here fits it."
    likely = _likely_partner(file, private)
    if likely is None:
        return Mark.UNKNOWN, [Paragraph(text, print_)]
    text += f" Is {os.path.basename(likely.name)} in that device? Then SPK301 applies"
    return Mark.BAD, [Paragraph(text, print_)]


def _likely_partner(public: KeyFile, private: list[KeyFile]) -> KeyFile | None:
    """Return the private file that was probably meant: named alike, or the only key a device could use."""
    for file in private:
        if pair_name(file.name) == pair_name(public.name):
            return file
    readable = [file for file in private if file.firmware is not None and file.firmware.ok]
    moduli = {part.key.n for file in readable for part in file.parts if part.key.private}
    return min(readable, key=lambda file: len(file.parts)) if len(moduli) == 1 else None


def _server_paragraphs(file: KeyFile, part: KeyPart) -> tuple[Mark, list[Paragraph]]:
    key, reading = part.key, part.firmware
    print_ = key.fingerprint
    if key.private:
        return Mark.GOOD, [Paragraph("server private key: opens what devices send first (who I am)", print_)]
    name = "server public key"
    if key.is_production:
        name += " of the Particle cloud"
    if part.pem and "pem_in_der" not in file.reasons:
        return Mark.GOOD, [Paragraph(f"{name} as PEM text", print_)]
    if part.pem or (reading is not None and not reading.ok):
        why = "PEM text" if part.pem else "; ".join(reading.differences if reading else ())
        text = f"{name} in a form that a device misreads: {why}. Convert it:"
        return Mark.WARNING, [Paragraph(text, print_), Paragraph(_public_command(file, part), command=True)]
    text = f"{name}, {file.size:,} bytes"
    if "cer_is_der" in file.reasons:
        suffix = os.path.splitext(file.name)[1].lower()
        text += f"; {suffix} is harmless, the content is that of a .der file"
    return Mark.GOOD, [Paragraph(text, print_), *_address(part)]


def _address(part: KeyPart) -> list[Paragraph]:
    if part.server_address is None:
        return []
    port = part.server_address.port or SPARK_PORT
    return [Paragraph(f"A device with this image goes to {part.server_address.host}:{port}.")]


# --- commands ---------------------------------------------------------------------------------------------


def _private_command(file: KeyFile, part: KeyPart) -> str:
    inform = "" if part.pem else "-inform DER "
    return f"openssl rsa {inform}-in {_quoted(file)} -outform DER -traditional -out NEW.der"


def _public_command(file: KeyFile, part: KeyPart) -> str:
    inform = "" if part.pem else "-inform DER "
    source = "-RSAPublicKey_in" if part.encoding == "pkcs1-public" else "-pubin"
    return f"openssl rsa {source} {inform}-in {_quoted(file)} -pubout -outform DER -out NEW.der"


def _certificate_command(file: KeyFile, part: KeyPart) -> str:
    inform = "" if part.pem else "-inform DER "
    take = f"openssl x509 {inform}-in {_quoted(file)} -pubkey -noout"
    return f"{take} | openssl pkey -pubin -outform DER -out NEW.der"


def _quoted(file: KeyFile) -> str:
    return shlex.quote(printable(file.name))


# --- order ------------------------------------------------------------------------------------------------


def _public_halves_after_private(files: list[KeyFile]) -> list[KeyFile]:
    """Put each file that holds only a public half behind the first file with its private one."""
    # Dumps last: the public half belongs behind the key's own file.
    owners = sorted(files, key=lambda file: file.kind in _DUMP_NAMES)
    private = {key.n: file.name for file in reversed(owners) for key in file.keys if key.private}
    followers: dict[str, list[KeyFile]] = {}
    leading: list[KeyFile] = []
    for file in files:
        key = file.keys[0] if len(file.keys) == 1 else None
        if key is not None and not key.private and key.n in private and file.kind != "truncated":
            followers.setdefault(private[key.n], []).append(file)
        else:
            leading.append(file)
    return [file for head in leading for file in (head, *followers.pop(head.name, []))]


def _part_dict(part: KeyPart) -> dict[str, object]:
    address = part.server_address
    return {
        "role": part.key.role,
        "private": part.key.private,
        "bits": part.key.bits,
        "fingerprint": part.key.fingerprint,
        "sha256": part.key.sha256,
        "production": part.key.is_production,
        "encoding": part.encoding,
        "pem": part.pem,
        "offset": part.offset,
        "address": part.address,
        "firmware_reads": part.firmware.ok if part.firmware else None,
        "differences": list(part.firmware.differences) if part.firmware else [],
        "server": {"host": address.host, "port": address.port or SPARK_PORT} if address else None,
    }
