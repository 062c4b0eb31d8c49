"""Writing that never leaves half a file, and reading that says what is wrong.

A folder or file is written beside its place, put on the disk and renamed into it; what was there
stays until then. A file is exchanged in one step. An existing folder takes two renames, because the
system has no exchange of folders that Python can call: a kill between them leaves no folder of that
name, and what was there is whole in `.NAME.old.*/NAME` beside it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safectl.errors import FileFormatError, StorageError


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an exception.

    Args:
        path: The folder to make.
        replace: Whether an existing folder is exchanged for the new one; refused otherwise. A plain
            file is never replaced.

    Raises:
        StorageError: If the folder exists or the disk refuses; `path` is as it was before.
    """
    if path.exists() and not path.is_dir():
        raise StorageError(path, "it is a file, and a folder is to be made")
    if path.exists() and not replace:
        raise StorageError(path, "it exists already and is not overwritten")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
    try:
        yield draft
        draft.chmod(0o755)
        for written in (*draft.rglob("*"), draft):
            _sync(written)
        _exchange(draft, path)
        with suppress(OSError):  # it is in place; some file systems cannot sync a folder
            _sync(path.parent)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` that replaces it when the block ends without an exception.

    Raises:
        StorageError: If the disk refuses; `path` is as it was before.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        draft.replace(path)
        with suppress(OSError):  # it is in place; some file systems cannot sync a folder
            _sync(path.parent)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):  # also where the parent turned out to be a file
            draft.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with a final newline, whole or not at all.

    Raises:
        StorageError: If the disk refuses.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileFormatError: If the file is missing, truncated or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(path, "does not exist", advice) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(path, f"cannot be read as JSON ({error})", advice) from error
    if not isinstance(value, dict):
        raise FileFormatError(path, "holds no JSON object", advice)
    return value


def _exchange(draft: Path, path: Path) -> None:
    """Rename `draft` to `path`, moving an existing folder out of the way first."""
    if not path.exists():
        draft.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    old = aside / path.name
    try:
        path.rename(old)
        try:
            draft.rename(path)
        except BaseException:
            old.rename(path)
            raise
    finally:
        if path.exists():  # else `old` is the only copy
            shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
