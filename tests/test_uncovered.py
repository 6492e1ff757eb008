"""Reasons for lines that no test runs stay with their lines, and the page on them is that of the reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData
from screens import ROOT
from uncovered import measured
from uncovered.command import PAGE, reasons
from uncovered.places import MODULE, Place, places

SOURCE = '''"""Text."""


class Reader:
    def read(self, name):
        """Text."""
        try:
            return open(name)
        except OSError as error:
            if error.errno:
                log(error)
            raise
        finally:
            done()

    def never(self):
        """Text."""
        first()
        second()


if True:
    pass
else:
    other()


@cache
def kept():
    return 7
'''


def named(source: str, *texts: str) -> list[Place]:
    """The places of lines that say this."""
    lines = source.splitlines()
    return places(source, [number for number, line in enumerate(lines, 1) if line.strip() in texts])


def test_a_place_is_named_by_its_function_and_by_what_opens_the_block() -> None:
    handler = ("except OSError as error:", "if error.errno:", "log(error)", "raise")
    (place,) = named(SOURCE, *handler)
    assert (place.function, place.text) == ("Reader.read", "except OSError as error: if error.errno:")
    assert len(place.lines) == 4
    (inner,) = named(SOURCE, "log(error)")
    assert inner.text == "if error.errno: log(error)"
    assert named(SOURCE, "first()", "second()")[0].text == "first()"
    assert named(SOURCE, "second()")[0].text == "second()"
    (other,) = named(SOURCE, "other()")
    assert (other.function, other.text) == (MODULE, "else of if True: other()")
    (kept,) = named(SOURCE, "@cache")
    assert (kept.function, kept.text) == (MODULE, "@cache")


def test_a_name_stays_when_lines_move() -> None:
    moved = SOURCE.replace("class Reader:", "import os\n\n\nclass Reader:\n    size = 7\n")
    texts = ("if error.errno:", "log(error)", "raise", "except OSError as error:", "other()", "second()")
    assert named(moved, *texts) == named(SOURCE, *texts)
    assert [place.lines for place in named(moved, *texts)] != [place.lines for place in named(SOURCE, *texts)]


def test_data_of_another_commit_are_moved_to_where_its_lines_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "analyzer").mkdir()
    (tmp_path / "analyzer" / "one.py").write_text("new = 1\nfirst = 1\nchanged = 3\nthird = 3\n")
    monkeypatch.setattr(measured, "ROOT", tmp_path)
    monkeypatch.setattr(measured, "git", lambda *words: "first = 1\nsecond = 2\nthird = 3\n")
    data = CoverageData(str(tmp_path / "data"))
    data.add_lines({"/elsewhere/analyzer/one.py": {1, 2, 3}})
    data.write()
    (tmp_path / "killed").write_bytes(b"SQLite format 3\0" + bytes(99))
    run, damaged = measured.lines_run([(tmp_path / "data", "abc"), (tmp_path / "killed", None)])
    assert (run, damaged) == ({"analyzer/one.py": {2, 4}}, 1)


def test_reasons_are_about_functions_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for file, functions in reasons().items():
        source = (ROOT / file).read_text(encoding="utf-8")
        for function, texts in functions.items():
            assert function == MODULE or f"def {function.rpartition('.')[2]}(" in source, f"{file}: {function}"
            for text, why in texts.items():
                assert why in page, f"{text}: run python -m tests.uncovered --write"


def test_every_line_that_is_not_run_has_a_reason() -> None:
    assert "No reason has been given" not in PAGE.read_text(encoding="utf-8")
