"""The page on what was tried is that of the records, and each bug that it tells about has a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

from attempts.__main__ import HERE, PAGE, page, records
from screens import ROOT


def test_page_is_made_of_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: .venv/bin/python -m tests.attempts"


def test_bugs_that_were_found_have_tests() -> None:
    for record in records():
        for bug in record["found"]:
            file, _, name = bug["test"].partition("::")
            name = name.partition("[")[0]
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), bug


def test_records_stand_alone() -> None:
    assert {path.suffix for path in Path(HERE).iterdir() if path.is_file()} <= {".json", ".py"}
