"""A program of its own: HDF5 on standard input, its attributes and arrays on standard output.

Damaged files make libhdf5 loop for ever, so it runs in a process with limits on time and memory.
It imports nothing of this project, to start fast; `hdf5.py` is the other end.
"""

import io
import json
import math
import resource
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

LARGEST_BYTES = 1 << 26
"""Of all arrays: 64 MiB, far above the flash of every board."""
CPU_SECONDS, ADDRESS_BYTES = 3, 1 << 31
DEEPEST, MOST_MEMBERS = 16, 1 << 14
"""Groups inside each other, and groups and arrays in all: an HDF5 file can hold circles."""
ATTRIBUTES = "attributes"
"""Name of the answer's array with the JSON of the text attributes; arrays are named `/a/b`."""


def main() -> int:
    """Answer with an `.npz`, or with a message on standard error and status 1."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sys.stdout.buffer.write(_answer(sys.stdin.buffer.read()))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        sys.stderr.write(f"{error}")
        return 1
    return 0


def _answer(content: bytes) -> bytes:
    arrays: dict[str, Any] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        attributes = {name: _text(value) for name, value in file.attrs.items()}
        total = 0
        for path, found in _datasets(file):
            total += math.prod(found.shape) * found.dtype.itemsize
            if total > LARGEST_BYTES:
                raise ValueError(f"over {LARGEST_BYTES} bytes of arrays")
            if found.external or found.is_virtual or found.dtype.kind not in "fiu":
                raise ValueError(f"{path} is stored elsewhere or holds no numbers")
            arrays[path] = np.asarray(found[()])
    arrays[ATTRIBUTES] = np.array(json.dumps(attributes))
    answer = io.BytesIO()
    np.savez(answer, **arrays)
    return answer.getvalue()


def _datasets(root: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Walk all groups; nothing outside the file is reached and circles end."""
    pending: list[tuple[str, h5py.Group | h5py.Dataset]] = [("", root)]
    for _ in range(MOST_MEMBERS):
        if not pending:
            return
        path, found = pending.pop()
        if not isinstance(found, h5py.Group):
            yield path, found
            continue
        for name in found:
            if not isinstance(found.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{path}/{name} is a link to elsewhere")
            pending.append((f"{path}/{name}", found[name]))
        if path.count("/") > DEEPEST:
            raise ValueError(f"over {DEEPEST} groups inside each other")
    raise ValueError(f"over {MOST_MEMBERS} groups and arrays")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    sys.exit(main())
