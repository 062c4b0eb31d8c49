"""The model files of `tests/golden/models` with what their own framework returns."""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[4] / "golden" / "models"
SUFFIXES = (".h5", ".keras", ".onnx", ".tflite")
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in SUFFIXES)


def examples(path):
    """Inputs (rows, nx) and outputs (rows, nu) of a file; both torch exporters share them."""
    with np.load(FOLDER / f"{path.stem.removesuffix('_old')}.npz") as found:
        return found["inputs"], found["outputs"]
