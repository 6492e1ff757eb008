"""All rows in one table, and which of them the Wireshark plugin has."""

from __future__ import annotations

from typing import Final

from analyzer.findings.captures import CAPTURES
from analyzer.findings.connectivity import CONNECTIVITY
from analyzer.findings.keypairs import KEYPAIRS
from analyzer.findings.login import LOGIN
from analyzer.findings.sessions import SESSIONS
from analyzer.findings.updates import UPDATES

_SPECS: Final = (*CONNECTIVITY, *LOGIN, *KEYPAIRS, *SESSIONS, *UPDATES, *CAPTURES)

FINDINGS: Final = {spec.code: spec for spec in sorted(_SPECS, key=lambda spec: spec.code)}
"""All findings by code."""
ON_THE_COMMAND_LINE: Final = ("SPK105", "SPK106", "SPK210", "SPK502", "SPK504", "SPK506", "SPK507", "SPK603")
"""Told from packets that are not TCP, from the whole of a session, or from several of them."""
JUDGED_IN_WIRESHARK: Final = frozenset(FINDINGS) - {"SPK307", "SPK401", "SPK705", "SPK706", *ON_THE_COMMAND_LINE}
"""What the Wireshark plugin says by itself. The others are about key files, about Wireshark's own rows, which the plugin
replaces, about captures without any connection, and what only the command line tells."""
