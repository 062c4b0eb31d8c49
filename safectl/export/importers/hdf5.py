"""Reading HDF5 files, which may be damaged, through a process with limits."""

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safectl.errors import FileFormatError, MissingExtra
from safectl.export.importers.layers import Array

TIMEOUT_S = 30.0
"""Wall clock for one file; reading a model takes about 0.2 s."""
_CHILD = Path(__file__).with_name("hdf5_child.py")
_ATTRIBUTES = "attributes"
_ADVICE = "save the model again"


class Hdf5(NamedTuple):
    """What an HDF5 file holds.

    Attributes:
        attributes: Attributes of the file as text.
        arrays: Arrays by the path of their groups.
    """

    attributes: Mapping[str, str]
    arrays: Mapping[tuple[str, ...], Array]


def read_hdf5(path: Path, content: bytes) -> Hdf5:
    """Read all arrays.

    Args:
        path: Of the file, for messages.
        content: Its bytes.

    Raises:
        FileFormatError: If it is damaged, too large, or refers to something outside itself.
        MissingExtra: If h5py is not installed.
    """
    if importlib.util.find_spec("h5py") is None:
        raise MissingExtra("h5py", "mcu")
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=content,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FileFormatError(path, f"takes over {TIMEOUT_S} s to read", _ADVICE) from error
    if child.returncode != 0:
        problem = child.stderr.decode(errors="replace").strip()[-300:] or "damaged"
        raise FileFormatError(path, f"cannot be read as HDF5 ({problem})", _ADVICE)
    with np.load(io.BytesIO(child.stdout), allow_pickle=False) as answer:
        attributes = json.loads(str(answer[_ATTRIBUTES]))
        arrays = {
            tuple(name.split("/")[1:]): answer[name] for name in answer.files if name != _ATTRIBUTES
        }
    return Hdf5(attributes, arrays)
