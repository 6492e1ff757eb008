"""Key files, key logs and session keys: the only place that reads secrets (PROTOCOL 3 and 8)."""

from analyzer.keys.firmware import firmware_reads
from analyzer.keys.inspect import inspect_key_file
from analyzer.keys.keylog import (
    KeyLog,
    SessionKey,
    key_log_line,
    parse_session_key,
    read_key_log,
    write_key_log,
)
from analyzer.keys.model import FirmwareReading, Key, KeyFile, KeyFileError, KeyPart, ServerAddress
from analyzer.keys.ring import KeyRing, NamedPair

__all__ = [
    "FirmwareReading",
    "Key",
    "KeyFile",
    "KeyFileError",
    "KeyLog",
    "KeyPart",
    "KeyRing",
    "NamedPair",
    "ServerAddress",
    "SessionKey",
    "firmware_reads",
    "inspect_key_file",
    "key_log_line",
    "parse_session_key",
    "read_key_log",
    "write_key_log",
]
