"""Runs the real Wireshark with its windows, on a screen that nobody sees, and writes down what it shows.

Wireshark cannot be asked what stands in its list. So a second Lua script, the probe, goes along with the plugin: it
reads the fields of every packet each time the list is made, and does what a user would do next. Two kinds of screen:
Qt's own ``offscreen``, where only scripts can act, and `Screen`, a real one in memory for keys and mouse.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import lua_coverage
from wireshark import NOBODY

from analyzer.capture import Capture
from analyzer.wireshark.generate import FILE_NAME

FIELDS: Final = ("frame.number", "spark.stage", "spark.message", "spark.direction", "coap.mid", "spark.finding")
"""What is read of each packet. ``_ws.lua.error`` is looked for beside it."""
LIMIT: Final = 60
"""Seconds. A box that waits for a click must not hold up all tests."""
PATIENCE: Final = 5.0
"""Seconds after which keys that had no effect are pressed again."""
POLL: Final = 0.03
QUIET: Final = 0.4
"""Seconds without a look at a packet after which Wireshark is idle."""

Row = tuple[str, ...]

NOISE: Final = re.compile(
    r"QStandardPaths: |nl80211 not found|propagateSizeHints|XDG_RUNTIME_DIR not set|getpwuid_r|"
    r"failed to get the current screen resources|qt\.qpa|libEGL|MESA|dbus"
)
"""What Wireshark says about this machine and not about the plugin."""

BEFORE: Final = r"""
-- Goes in before the plugin: whatever it puts on the screen passes through here.
local log = io.open(os.getenv("SPARK_PROBE"), "a")
log:setvbuf("line")
_G.probe = { log = log, menus = {}, windows = {}, dialogs = {}, buttons = {} }

function probe.write(...)
  local texts = { ... }
  local escaped = { ["\\"] = "\\\\", ["\t"] = "\\t", ["\n"] = "\\n" }
  for place, text in ipairs(texts) do texts[place] = string.gsub(tostring(text), "[\\\t\n]", escaped) end
  log:write(table.concat(texts, "\t"), "\n")
end

local register, window, dialog = register_menu, TextWindow, new_dialog
function _G.register_menu(name, call, group)
  probe.menus[name] = call
  register(name, call, group)
end
-- The menu of a packet came with Wireshark 4.2. What it would call can be called in all.
function _G.register_packet_menu(name, call, needs)
  probe.menus[name .. " (" .. needs .. ")"] = call
end
_G.TextWindow = { new = function(title)
  local made = window.new(title)
  probe.windows[#probe.windows + 1] = { title, made }
  local watched = { add_button = function(_, label, call)
    probe.buttons[label] = call
    made:add_button(label, call)
  end }
  return setmetatable(watched, { __index = function(_, name)
    return function(_, ...) return made[name](made, ...) end
  end })
end }
function _G.new_dialog(title, call, ...)
  probe.dialogs[title] = { call, ... }
  dialog(title, call, ...)
end
"""

AFTER: Final = r"""
-- Goes in after the plugin: reads the fields, and takes one step each time Wireshark has gone through the packets.
local names, steps = { %(fields)s }, { %(steps)s }
local fields = {}
for place, name in ipairs(names) do fields[place] = Field.new(name) end
local failure = Field.new("_ws.lua.error")

local function read()
  local texts = {}
  for place, one in ipairs(fields) do
    local values = { one() }
    for index, value in ipairs(values) do values[index] = value.display end
    texts[place] = table.concat(values, ",")
  end
  if failure() then probe.write("error", tostring(failure())) end
  return (table.unpack or unpack)(texts)
end

-- Every time a packet is looked at: for the list, for a click, for a filter.
local spy = Proto("spark_probe", "Spark probe")
function spy.dissector(_, pinfo) probe.write("look", pinfo.visited and "again" or "first", read()) end
function spy.init() probe.write("init") end
register_postdissector(spy)

local rows, place, busy, done = {}, 0, false, false
local tap = Listener.new("frame")
function tap.reset() rows = {} end
function tap.packet() rows[#rows + 1] = { read() } end
function tap.draw()
  -- Wireshark also calls while it is still reading, every few seconds.
  if busy or #rows < %(packets)d then return end
  busy = true
  probe.write("rows", place == 0 and "loaded" or steps[place] and steps[place][1] or "later")
  for _, row in ipairs(rows) do probe.write("row", (table.unpack or unpack)(row)) end
  while place <= #steps do
    place = place + 1
    local step = steps[place]
    if not step then break end
    local went_well, problem = pcall(step[2])
    if not went_well then probe.write("error", step[1], problem) end
    if step[3] then break end
  end
  if place > #steps and not done then
    done = true
    for _, window in ipairs(probe.windows) do probe.write("window", window[1], window[2]:get_text()) end
    for title, dialog in pairs(probe.dialogs) do
      local labels = {}
      for index = 2, #dialog do labels[#labels + 1] = dialog[index].name end
      probe.write("dialog", title, (table.unpack or unpack)(labels))
    end
    for name in pairs(probe.menus) do probe.write("menu", name) end
    probe.write("done")
  end
  busy = false
end
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: Lua. ``relists``: Wireshark then goes through the packets again, and the rows are read."""

    name: str
    lua: str
    relists: bool = True


LIST_AGAIN: Final = Step("again", 'set_filter("frame") apply_filter()')


@dataclass(slots=True)
class Seen:
    """What the probe wrote, and what Wireshark complained about."""

    rows: dict[str, list[Row]] = field(default_factory=dict)  # by the step after which they were read
    looks: list[tuple[bool, Row]] = field(default_factory=list)  # each look at a packet, and whether it was the first
    windows: list[tuple[str, str]] = field(default_factory=list)  # title and text
    dialogs: dict[str, list[str]] = field(default_factory=dict)  # title and the names of its lines
    menus: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    inits: int = 0
    done: bool = False
    complaints: list[str] = field(default_factory=list)


def _seen(text: str, stderr: str) -> Seen:
    seen = Seen()
    rows: list[Row] = []
    for line in text.splitlines():
        what, *values = (_unescaped(value) for value in line.split("\t"))
        if what == "rows":
            rows = seen.rows[values[0]] = []
        elif what == "row":
            rows.append(tuple(values))
        elif what == "look":
            seen.looks.append((values[0] == "first", tuple(values[1:])))
        elif what == "window":
            seen.windows.append((values[0], values[1]))
        elif what == "dialog":
            seen.dialogs[values[0]] = values[1:]
        elif what == "menu":
            seen.menus.add(values[0])
        elif what == "error":
            seen.errors.append(": ".join(values))
        elif what == "init":
            seen.inits += 1
        elif what == "done":
            seen.done = True
    seen.complaints = [line for line in stderr.splitlines() if line.strip() and not NOISE.search(line)]
    return seen


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"t": "\t", "n": "\n"}.get(found[1], found[1]), text)


@dataclass(slots=True)
class Running:
    """A Wireshark with its windows. Everything it reads and writes is in ``folder``."""

    folder: Path
    process: subprocess.Popen[bytes]

    def seen(self) -> Seen:
        """Return what was written so far."""
        whole = (self.folder / "probe.txt").read_text(encoding="utf-8", errors="replace")
        return _seen(whole[: whole.rfind("\n") + 1], (self.folder / "stderr.txt").read_text(errors="replace"))

    def wait_until(self, holds: Callable[[Seen], bool], act: Callable[[], None] | None = None) -> Seen:
        """Wait until ``holds``, or fail when that takes too long or Wireshark ends.

        ``act`` is done at once, and again after a while: keys pressed before a window listens are lost.
        """
        end, again = time.monotonic() + LIMIT, 0.0
        while time.monotonic() < end and self.process.poll() is None:
            if act and time.monotonic() >= again:
                act()
                again = time.monotonic() + PATIENCE
            seen = self.seen()
            if holds(seen):
                return seen
            time.sleep(POLL)
        seen = self.seen()
        ended = self.process.poll()
        raise AssertionError(f"waited in vain (status {ended}); errors {seen.errors}, stderr {seen.complaints}")

    def settled(self) -> Seen:
        """Wait until nothing more is looked at."""
        count = -1
        while count != len(self.seen().looks):
            count = len(self.seen().looks)
            time.sleep(QUIET)
        return self.seen()


@contextmanager
def wireshark(
    capture: Path,
    *options: str,
    steps: Sequence[Step] = (),
    files: Mapping[str, Path] | None = None,
    display: str | None = None,
) -> Iterator[Running]:
    """Run Wireshark on ``capture`` as a user of no rights with a home of its own, until the block ends.

    ``files``: what else goes to the folder in which it runs, by its name there. ``display``: the screen; without
    one, it draws into memory.
    """
    folder = Path(tempfile.mkdtemp(prefix="sparkshark-gui-"))
    try:
        _fill(folder, capture, steps, files or {})
        root = os.geteuid() == 0
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if root else []
        environment = {
            "HOME": str(folder),
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "SPARK_PROBE": str(folder / "probe.txt"),
            **({"DISPLAY": display} if display else {"QT_QPA_PLATFORM": "offscreen"}),
        }
        scripts = [word for name in ("before.lua", FILE_NAME, "after.lua") for word in ("-X", f"lua_script:{name}")]
        with (folder / "stderr.txt").open("wb") as stderr:
            process = subprocess.Popen(
                [*drop, "wireshark", *scripts, "-r", capture.name, *options],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            yield Running(folder, process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, capture: Path, steps: Sequence[Step], files: Mapping[str, Path]) -> None:
    shutil.copy(capture, folder)
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (folder / FILE_NAME).write_bytes(lua_coverage.plugin())
    (folder / "before.lua").write_bytes(lua_coverage.prelude() + BEFORE.encode())
    written = ", ".join(f'{{ "{s.name}", function() {s.lua} end, {"true" if s.relists else "false"} }}' for s in steps)
    names = ", ".join(f'"{name}"' for name in FIELDS)
    (folder / "after.lua").write_text(
        AFTER % {"fields": names, "steps": written, "packets": _packets(capture)}, encoding="utf-8"
    )
    (folder / "probe.txt").touch()
    (folder / "run").mkdir()
    (folder / "run").chmod(0o700)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def _packets(capture: Path) -> int:
    return sum(1 for _ in Capture([capture]))


def drive(capture: Path, *options: str, steps: Sequence[Step] = (), files: Mapping[str, Path] | None = None) -> Seen:
    """Load a capture offscreen, take the steps, and return everything that was seen. Nothing may go wrong."""
    with wireshark(capture, *options, steps=steps, files=files) as running:
        seen = running.wait_until(lambda seen: seen.done)
    nothing_wrong(seen)
    return seen


def nothing_wrong(seen: Seen) -> None:
    """No script failed, and Wireshark did not complain."""
    assert not seen.errors
    assert not seen.complaints


# -- a screen with keys ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Screen:
    """A display in memory."""

    name: str

    def windows(self) -> list[str]:
        """Return the titles of the windows that are open."""
        found = self._xdotool("search", "--onlyvisible", "--name", ".", "getwindowname", "%@")
        return [title for title in found.splitlines() if title]

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as xdotool names them."""
        self._xdotool("key", "--delay", "60", *keys)

    def type(self, text: str) -> None:
        """Type a text."""
        self._xdotool("type", "--delay", "20", text)

    def focus(self, title: str) -> None:
        """Let a window have the keys, as soon as it is there."""
        self._xdotool("search", "--sync", "--onlyvisible", "--name", title, "windowfocus", "--sync")

    def _xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words],
            env={"DISPLAY": self.name, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
        return done.stdout


@contextmanager
def screen() -> Iterator[Screen]:
    """Start a display of its own number, until the block ends."""
    reading, writing = os.pipe()
    try:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(writing)
        try:
            number = os.read(reading, 16).decode().strip()
            assert number, "Xvfb did not start"
            yield Screen(f":{number}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    finally:
        os.close(reading)
