"""The report as one page for a browser: a single file that asks nobody for anything.

`page` gathers what stands on it, `picture` and the modules on it draw, the template lays it out. Every piece of text
goes through one place on its way into the page: there it is shortened where that was asked for, what a reader's
program could act on is made visible, and then the template engine escapes it. So no part of the page can forget to.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from analyzer.findings import CONFIDENCE_WORDS, FINDINGS
from analyzer.report.explained import NO_KEY_HELPS, filled, led_of
from analyzer.report.figures import HEADING, LEFT_OUT, LOGIN, STEP_HEADERS
from analyzer.report.html.ladderpicture import DAGGER, MISREAD, NOTE, SHOWS
from analyzer.report.html.page import CLASSES, FEW, LANES, page_of
from analyzer.report.markdown import markdown_report
from analyzer.report.redact import Redactor
from analyzer.trace import Trace
from analyzer.version import version
from analyzer.wording import held_together, number, plural, printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE: Final = "page.html.j2"
STYLE: Final = "style.css"
SCRIPT: Final = "script.js"
FOLDER: Final = "templates"
OPTION: Final = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")
"""An option of the command in a sentence: letters and hyphens, nothing that could act in HTML."""


def html_report(
    trace: Trace, name: str, redactor: Redactor | None = None, *, messages_first: bool = False, every: bool = False
) -> Iterator[str]:
    """Yield the page on a capture called ``name`` in pieces; ``redactor`` shortens it, None leaves it as it is.

    The Markdown on it, which is there to be posted, is shortened in any case, for which what strangers wrote is taken
    out of ``trace`` in the end. ``messages_first``: the messages stand
    open; ``every``: each chunk of an update has a row of its own.
    """
    page = page_of(trace, name, redacted=redactor is not None, every=every)
    # The page itself is known by now: what strangers wrote may be taken out of the trace.
    post = markdown_report(trace, redactor or Redactor(trace).withhold(trace))
    environment = _environment(redactor)
    style, script = _asset(STYLE), _asset(SCRIPT)
    shown = environment.get_template(TEMPLATE).stream(
        page=page,
        messages_first=messages_first,
        post=post.splitlines(),
        style=environment.call_filter("safe", style),
        script=environment.call_filter("safe", script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        classes=CLASSES,
        lanes=LANES,
        few=FEW,
        findings=FINDINGS,
        filled=filled,
        led_of=led_of,
        no_key_helps=NO_KEY_HELPS,
        sure_words=CONFIDENCE_WORDS,
        step_headers=STEP_HEADERS,
        figures_heading=HEADING,
        figures_login=LOGIN,
        figures_left_out=LEFT_OUT,
        note=NOTE,
        dagger=DAGGER,
        misread=MISREAD,
        shows=SHOWS,
        version=version(),
        plural=plural,
        # Asked for at the very end of the page, when all that stands before has been shortened.
        shortened=lambda: redactor.closing(contents=page.messages is not None) if redactor is not None else "",
    )
    shown.enable_buffering(200)
    yield from shown


class _Prose(str):
    """Text whose lines are broken by the browser: a number stays with its unit."""

    __slots__ = ()


def _environment(redactor: Redactor | None) -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - only this form of report needs it

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.finalize = _made_inert(redactor.shorten if redactor is not None else str, environment)
    environment.filters["prose"] = _Prose
    environment.filters["number"] = number
    return environment


def _made_inert(shorten: Callable[[str], str], environment: Environment) -> Callable[[object], object]:
    """Return what every value goes through before it is escaped and put into the page."""

    def inert(value: object) -> object:
        if value is None:
            return ""
        if hasattr(value, "__html__") or not isinstance(value, str):
            return value  # what a macro has made of pieces that were here already; numbers
        # What is not printable has no place in HTML, and what changes the direction of writing would act on the rest.
        text = printable(shorten(str(value)))
        if not isinstance(value, _Prose):
            return text
        # A browser parts an option behind its hyphens. The text is escaped already when the option gets its element.
        escaped = str(environment.call_filter("escape", held_together(text)))
        return environment.call_filter("safe", OPTION.sub(r'<span class="option">\g<0></span>', escaped))

    return inert


def _asset(name: str) -> str:
    """Return a file of the package; also where the package is a zip file."""
    return files(__package__).joinpath(FOLDER, name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a content policy allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
