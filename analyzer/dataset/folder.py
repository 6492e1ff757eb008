"""The folder that a data set is written to: what is refused, and how the tables get their names when all is written.

Nothing is ever deleted but what this module's own names say is a table of ours, and no link is followed for that. A
process that is killed leaves a hidden folder with what it had written; the next one that writes there takes it away,
and puts tables back into their places that were about to be replaced.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from analyzer.dataset.columns import COLUMNS, DATE
from analyzer.outfile import abandoned, hold

FILE: Final = "sparkshark.parquet"
"""The one file of each day. Its name tells a table of ours from one that somebody else keeps under the same name."""
_BEGINS, _ENDS = ".sparkshark-", ".part"
_DAY: Final = re.compile(rf"{DATE}=[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}")


class DatasetError(ValueError):
    """A data set cannot be written there. The text is one line: where, why, and what to do."""


def day_folder(day: str) -> str:
    """Return the name of a day's folder, ``date=2026-11-23``: to its readers a column and its value."""
    return f"{DATE}={day}"


def check_folder(path: str, *, force: bool) -> None:
    """Complain when a data set cannot be written to ``path``: before a long analysis, and not after it.

    A folder that is not there is made later. With ``force`` one with other things in it is taken, but not one in
    which something else has the name of a table.
    """
    there = os.path.lexists(path)
    parent = os.path.dirname(path.rstrip(os.sep)) or "."
    if there and not os.path.isdir(path):
        raise DatasetError(f"{path}: exists already and is no folder. Nothing was written. Try: another name")
    if not there and not os.path.isdir(parent):
        raise DatasetError(f"{path}: the folder {parent} does not exist. Make it first: mkdir -p {shlex.quote(parent)}")
    try:  # only trying tells: rights are not all that can forbid it
        if not there:
            os.mkdir(path)
        os.rmdir(_temporary(path) if there else path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not there:
        return
    _tidy(path)
    if os.listdir(path) and not force:
        raise DatasetError(f"{path}: is not empty. Nothing was written. Try: another folder, or --force")
    for table in COLUMNS:
        _refuse_foreign(os.path.join(path, table))


@contextmanager
def new_tables(path: str, *, force: bool) -> Iterator[str]:
    """Give a folder with an empty one for each table; when all is written, these take their places in ``path``.

    Until then, and whenever something fails, ``path`` stays as it was.
    """
    check_folder(path, force=force)
    try:
        with ExitStack() as afterwards:
            if not os.path.lexists(path):
                os.mkdir(path)
                afterwards.callback(_remove_empty, path)
            unfinished = _temporary(path)
            afterwards.callback(_clear, unfinished)
            afterwards.callback(os.close, _held(unfinished))
            for table in COLUMNS:
                os.mkdir(os.path.join(unfinished, table))
            yield unfinished
            _put_in_place(path, unfinished, force=force)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _put_in_place(path: str, unfinished: str, *, force: bool) -> None:
    with ExitStack() as undo:
        for table in COLUMNS:
            new, final, old = os.path.join(unfinished, table), os.path.join(path, table), _replaced(unfinished, table)
            if force and os.path.lexists(final):
                _refuse_foreign(final)
                os.rename(final, old)
                undo.callback(os.rename, old, final)
            os.rename(new, final)
            undo.callback(os.rename, final, new)
        undo.pop_all()


def _cannot_write(path: str, error: OSError) -> DatasetError:
    why = (error.strerror or str(error)).lower()
    return DatasetError(f"{path}: cannot be written ({why}). Nothing was written. Try: another folder")


def _temporary(path: str) -> str:
    """Make a folder in ``path`` for what is not finished; its name hides it from those who list or read tables."""
    return tempfile.mkdtemp(prefix=_BEGINS, suffix=_ENDS, dir=path)


def _replaced(unfinished: str, table: str) -> str:
    """Return where a table stands from being replaced until all tables are in their places."""
    return os.path.join(unfinished, f"old-{table}")


def _held(unfinished: str) -> int:
    """Open a folder so that nobody takes it for abandoned as long as it is open."""
    descriptor = os.open(unfinished, os.O_RDONLY)
    hold(descriptor)
    return descriptor


def _tidy(path: str) -> None:
    """Take away what processes left unfinished in a data set's folder that were killed."""
    for name in os.listdir(path):
        left = os.path.join(path, name)
        if name.startswith(_BEGINS) and name.endswith(_ENDS) and os.path.isdir(left) and abandoned(left):
            for table in COLUMNS:
                if not os.path.lexists(final := os.path.join(path, table)):
                    with suppress(OSError):
                        os.rename(_replaced(left, table), final)
            _clear(left)


def _remove_empty(path: str) -> None:
    with suppress(OSError):
        os.rmdir(path)


def _refuse_foreign(table: str) -> None:
    """Complain when what stands at the place of a table is anything but a table of ours."""
    foreign = _foreign(table)
    if foreign is not None:
        raise DatasetError(f"{foreign}: was not written by sparkshark. Nothing was written. Try: another folder")


def _foreign(table: str) -> str | None:
    """Return the first thing in the place of a table that is not ours; None when there is none, or no table."""
    if not os.path.lexists(table):
        return None
    if os.path.islink(table) or not os.path.isdir(table):
        return table
    with os.scandir(table) as days:
        for day in days:
            if _DAY.fullmatch(day.name) is None or not day.is_dir(follow_symlinks=False):
                return day.path
            with os.scandir(day.path) as files:
                for file in files:
                    if file.name != FILE or not file.is_file(follow_symlinks=False):
                        return file.path
    return None


def _clear(unfinished: str) -> None:
    """Take away what was not finished, or was replaced. What is not ours keeps its folder from being removed."""
    with suppress(OSError):
        for table in os.listdir(unfinished):
            folder = os.path.join(unfinished, table)
            for day in os.listdir(folder):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, day, FILE))
                os.rmdir(os.path.join(folder, day))
            os.rmdir(folder)
        os.rmdir(unfinished)
