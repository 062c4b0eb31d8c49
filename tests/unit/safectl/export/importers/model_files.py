"""The model files of `tests/golden/models` with what their own framework returns."""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[4] / "golden" / "models"
SUFFIXES = (".h5", ".keras", ".onnx", ".tflite")
REFUSED = "tflite_lstm.tflite"
"""Its converter limits the cells of an LSTM, which has no operation."""
FILES = sorted(p for p in FOLDER.iterdir() if p.suffix in SUFFIXES and p.name != REFUSED)


def examples(path):
    """Inputs (rows, nx) and outputs (rows, nu) of a file; both torch exporters share them."""
    with np.load(FOLDER / f"{path.stem.removesuffix('_old')}.npz") as found:
        return found["inputs"], found["outputs"]
