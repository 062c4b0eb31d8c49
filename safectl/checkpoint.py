"""A checkpoint: a folder of JSON and safetensors that carries its specification and its origin.

It holds `config.json spec.json weights.safetensors metrics.json provenance.json` and, in
`manifest.json`, their SHA-256. It is written whole or not at all and is read without pickle, so a
stranger's checkpoint cannot run code. The manifest tells damage, not forgery.
"""

import hashlib
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

from safectl.errors import ConfigError, FileFormatError, NonFiniteError
from safectl.files import new_folder, read_json
from safectl.spec import Spec, require_same, spec_from_json

CHECKPOINT_VERSION = 2
_WEIGHTS = "weights.safetensors"
_PARTS = ("config.json", "spec.json", _WEIGHTS, "metrics.json", "provenance.json")
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
        ConfigError: If config, metrics or provenance hold what JSON cannot (NaN, a path, ...) or
            the config has a key `version`, which is ours. Nothing is written then.
        StorageError: If the folder exists (without `replace`) or cannot be written.
    """
    for name, tensor in checkpoint.weights.items():
        count = _non_finite(tensor)
        if count:
            raise NonFiniteError(
                f"weight {name}", count=count, size=tensor.numel(), advice="lower the learning rate"
            )
    if "version" in checkpoint.config:
        raise ConfigError("config of the checkpoint", "holds the reserved key 'version'; rename it")
    # Copies, because safetensors refuses tensors that share memory, as tied layers do.
    weights = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in checkpoint.weights.items()
    }
    provenance = dict(checkpoint.provenance) or describe_origin()
    parts = {
        "config.json": _encode("config", {"version": CHECKPOINT_VERSION, **checkpoint.config}),
        "spec.json": (checkpoint.spec.to_json() + "\n").encode(),
        _WEIGHTS: save(weights),
        "metrics.json": _encode("metrics", checkpoint.metrics),
        "provenance.json": _encode("provenance", provenance),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    parts["manifest.json"] = _encode("manifest", {"sha256": digests})
    with new_folder(folder, replace=replace) as draft:
        for name, content in parts.items():
            (draft / name).write_bytes(content)


def load_checkpoint(folder: Path, *, expected: Spec | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: What `save_checkpoint` wrote.
        expected: Specification of the robot or world that will use it; compared when given.

    Raises:
        FileFormatError: If a part is missing, changed by one bit, not finite or of an unknown
            version.
        SpecMismatch: If the specification differs from the expected one.
    """
    config = read_json(folder / "config.json", advice=_ADVICE)
    found = config.pop("version", None)
    if found != CHECKPOINT_VERSION:
        raise FileFormatError(
            folder, f"has version {found}", f"this program reads version {CHECKPOINT_VERSION}"
        )
    _require_intact(folder)
    spec_path = folder / "spec.json"
    spec = spec_from_json(json.dumps(read_json(spec_path, advice=_ADVICE)), str(spec_path))
    if expected is not None:
        require_same(spec, expected, left_name=str(folder), right_name="what is asked for")
    try:
        weights = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise FileFormatError(folder / _WEIGHTS, f"cannot be read ({error})", _ADVICE) from error
    for name, tensor in weights.items():
        if _non_finite(tensor):
            raise FileFormatError(folder / _WEIGHTS, f"{name} is not finite", _ADVICE)
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


def _encode(name: str, value: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{name} of the checkpoint",
            f"cannot be written as JSON ({error}); convert it to numbers, text, lists and tables",
        ) from error


def _require_intact(folder: Path) -> None:
    path = folder / "manifest.json"
    digests = read_json(path, advice=_ADVICE).get("sha256")
    if not isinstance(digests, dict):
        raise FileFormatError(path, "holds no table of SHA-256", _ADVICE)
    for name in _PARTS:
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise FileFormatError(folder / name, problem, _ADVICE) from error
        if digest != digests.get(name):
            raise FileFormatError(folder / name, "is not the file that was saved", _ADVICE)


def _non_finite(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0


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
