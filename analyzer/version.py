"""The version of this package."""

from __future__ import annotations


def version() -> str:
    """Return the version as ``pyproject.toml`` has it; a checkout that was never installed says so."""
    from importlib import metadata  # noqa: PLC0415 - slow to import, and only reports ask

    try:
        return metadata.version("sparkshark")
    except metadata.PackageNotFoundError:
        return "0+not-installed"
