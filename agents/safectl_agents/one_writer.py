"""A folder has one writer at a time: two commands on one run would mix their rows."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safectl.errors import ConfigError, StorageError


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Make this process the only writer of a folder, which is made if there is none.

    An empty `.writer` stays in it.

    The lock is the system's and ends with the process, also with one that is killed.

    Raises:
        ConfigError: If another process writes there.
        StorageError: If the folder cannot be written.
    """
    path = folder / ".writer"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "another command writes there; wait for it, or name another folder"
            raise ConfigError(str(folder), problem) from error
        except OSError as error:  # some file systems of networks have no locks
            raise StorageError(path, error.strerror or str(error)) from error
        yield
