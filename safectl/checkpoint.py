"""A checkpoint: a folder of JSON and safetensors that carries its specification and its origin.

It holds `config.json spec.json weights.safetensors metrics.json provenance.json`, is written whole
or not at all and is read without pickle, so a stranger's checkpoint cannot run code.
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from safectl.errors import FileFormatError, NonFiniteError
from safectl.files import new_folder, read_json
from safectl.spec import Spec, require_same, spec_from_json

CHECKPOINT_VERSION = 1
_ADVICE = "train or export it again, or name the folder of another checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a training leaves behind.

    Attributes:
        spec: Signals, units, bounds and period the weights were trained for.
        config: Settings that rebuild the object, JSON values only.
        weights: Named tensors, finite.
        metrics: Results, JSON values only.
        provenance: Commit, versions and seed; filled by `save_checkpoint` when empty.
    """

    spec: Spec
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, replace: bool = False) -> None:
    """Write a checkpoint; a kill or a full disk leaves what was there before.

    Raises:
        NonFiniteError: If a weight is NaN or infinite: such a checkpoint must not be deployed.
        StorageError: If the folder exists (without `replace`) or cannot be written.
    """
    for name, tensor in checkpoint.weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"weight {name}", count=count, size=tensor.numel(), advice="lower the learning rate"
            )
    provenance = dict(checkpoint.provenance) or describe_origin()
    with new_folder(folder, replace=replace) as draft:
        _write(draft / "config.json", {"version": CHECKPOINT_VERSION, **checkpoint.config})
        (draft / "spec.json").write_text(checkpoint.spec.to_json() + "\n", encoding="utf-8")
        _write(draft / "metrics.json", checkpoint.metrics)
        _write(draft / "provenance.json", provenance)
        weights = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
        (draft / "weights.safetensors").write_bytes(save(weights))


def load_checkpoint(folder: Path, *, expected: Spec | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: What `save_checkpoint` wrote.
        expected: Specification of the robot or world that will use it; compared when given.

    Raises:
        FileFormatError: If a part is missing, truncated or of an unknown version.
        SpecMismatch: If the specification differs from the expected one.
    """
    config = read_json(folder / "config.json", advice=_ADVICE)
    found = config.pop("version", None)
    if found != CHECKPOINT_VERSION:
        raise FileFormatError(
            folder, f"has version {found}", f"this program reads version {CHECKPOINT_VERSION}"
        )
    spec_path = folder / "spec.json"
    spec = spec_from_json(json.dumps(read_json(spec_path, advice=_ADVICE)), str(spec_path))
    if expected is not None:
        require_same(spec, expected, left_name=str(folder), right_name="what is asked for")
    try:
        weights = load_file(folder / "weights.safetensors")
    except (OSError, SafetensorError) as error:
        path = folder / "weights.safetensors"
        raise FileFormatError(path, f"cannot be read ({error})", _ADVICE) from error
    return Checkpoint(
        spec,
        config,
        weights,
        read_json(folder / "metrics.json", advice=_ADVICE),
        read_json(folder / "provenance.json", advice=_ADVICE),
    )


def describe_origin(seed: int | None = None) -> dict[str, Any]:
    """Return commit, versions and platform for `provenance.json`."""
    return {
        "commit": _commit(),
        "seed": seed,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in ("safectl-stack", "torch", "numpy")},
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _commit() -> str | None:
    """Return the commit of the checkout this runs in, None outside one or without git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5.0,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
