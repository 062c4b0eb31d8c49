"""Whether a safeguard on disk is still the one that was loaded."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

Fingerprint: TypeAlias = Mapping[Path, tuple[int, int]]
"""When every file was changed [ns since 1970], and its size [bytes]."""


def fingerprint(path: Path) -> Fingerprint:
    """Look at a file or folder, and at all that TOML files name in it; missing ones are left out.

    The contents of other files are not read: this is quick enough beside a running control loop.
    """
    found: dict[Path, tuple[int, int]] = {}
    seen, pending = set[Path](), [path]
    while pending:
        entry = pending.pop().resolve()
        if entry in seen:
            continue
        seen.add(entry)
        if entry.is_dir():
            pending += entry.iterdir()
        elif entry.exists():
            state = entry.stat()
            found[entry] = (state.st_mtime_ns, state.st_size)
            if entry.suffix == ".toml":
                pending += _named(entry)
    return found


def _named(path: Path) -> list[Path]:
    """Return what a TOML file may name, relative to itself."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    return [path.parent / text for text in _texts(content) if text and "\0" not in text]


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401  whatever TOML can hold
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
