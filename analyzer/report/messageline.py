"""One decrypted message as a line of JSON. A report has hundreds of thousands of these, so they are put together from
parts that are written once; `jsonreport.message` says the same field by field, and takes over for whatever is unusual.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Final

from analyzer.coap import CODE_TEXTS, TYPE_NAMES
from analyzer.report.exact import Instant

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage
    from analyzer.messages.shapes import Shape
    from analyzer.messages.values import Values

EVENT: Final = "Event"
NO_DATA: Final = '"data": null'
"""No text of a peer can look like it: in JSON its quotes have backslashes."""
_MICROSECONDS: Final = 6


def fields(m: SparkMessage, digits: int) -> str | None:
    """Return the fields of ``m`` as JSON, without the brace before them; None when they are not the usual ones.

    ``digits`` after the point of a time: 6 or 9.
    """
    shape = m.shape
    if shape is None:
        return None  # its front is lost, or it is no CoAP
    fixed, path, before, after = shape.written or _written(shape, m)
    plain, body = m.plaintext.hex(), shape.body
    if len(m.plaintext) > body:
        coap = m.decoded(shape)
        payload = coap.payload
        shown = payload.hex()
    else:
        coap, payload, shown = None, b"", ""
    if before:
        data = payload.decode("utf-8", "replace") if payload or (coap is not None and coap.anomalies) else None
        values = f"{before}{'null' if data is None else quoted(data)}{after}"
    else:
        values = _values(m.values)
    if digits == _MICROSECONDS and m.time_ns >= 0:
        micros = m.time_ns // 1000
        time = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
    else:
        time = str(Instant(m.time_ns, digits))
    name = "null" if m.name is None else f'"{m.name}"'
    answers = "null" if m.answers is None else m.answers
    return (
        f'"index": {m.index}, "packet": {m.packet}, "time": {time}, "direction": "{m.direction}", "name": {name}, '
        f'{fixed}{int(plain[4:8], 16)}, "token": "{plain[8 : 2 * body]}{path}{shown}", "plaintext": "{plain}", '
        f'"whole": true, "missing": 0, "answers": {answers}, "values": {values}}}'
    )


def _written(shape: Shape, m: SparkMessage) -> tuple[str, str, str, str]:
    """Write what the messages of one shape have in common, and leave it there.

    Of an event that is all but its data, so the last two parts are what stands before and behind them; of others they
    are empty.
    """
    coap, before, after = m.decoded(shape), "", ""
    if m.name == EVENT:
        before, after = _values({**m.values, "data": None}).split(NO_DATA)
        before += NO_DATA.removesuffix("null")
    shape.written = (
        f'"type": "{TYPE_NAMES[shape.kind]}", "code": "{CODE_TEXTS[shape.code]}", "message_id": ',
        f'", "path": {quoted(coap.path)}, "query": {json.dumps([q.hex() for q in coap.queries])}, "payload": "',
        before,
        after,
    )
    return shape.written


def _values(values: Values) -> str:
    if not values:
        return "{}"
    written = []
    for key, value in values.items():
        kind = type(value)
        if kind is str:
            text = quoted(value)
        elif value is None:
            text = "null"
        elif kind is int:
            text = str(value)
        else:
            text = json.dumps(value)
        written.append(f'"{key}": {text}')
    return f"{{{', '.join(written)}}}"
