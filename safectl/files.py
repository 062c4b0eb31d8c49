"""Writing that never leaves half a file, and reading that says what is wrong.

A folder or file is written beside its place and renamed into it; what was there stays until then.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safectl.errors import FileFormatError, StorageError


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an exception.

    Args:
        path: The folder to make.
        replace: Whether an existing folder is exchanged for the new one; refused otherwise.

    Raises:
        StorageError: If the folder exists or the disk refuses; `path` is as it was before.
    """
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
        _exchange(draft, path)
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
        draft.replace(path)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
    finally:
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
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"cannot be read as JSON ({error})", advice) from error
    if not isinstance(value, dict):
        raise FileFormatError(path, "holds no JSON object", advice)
    return value


def _exchange(draft: Path, path: Path) -> None:
    """Rename `draft` to `path`, moving an existing folder out of the way first."""
    if not path.exists():
        draft.rename(path)
        return
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(old)
    try:
        draft.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
