"""What finished seeds left in `result.json`, and which of them one table may hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safectl.config import to_mapping
from safectl.errors import FileFormatError
from safectl.files import read_json
from safectl_agents.fb.methods import METHODS
from safectl_agents.fb.settings import read_settings

RESULT = "result.json"

_ADVICE = "delete this folder and run the seed again"
_FREE = (
    *("seed", "steps", "device", "threads"),
    *("evaluate_every", "checkpoint_every", "keep", "log_every"),
)
"""Settings in which seeds of one comparison may differ."""
_DATA = ("episodes_of_the_data", "data_sha256")
"""Facts about the data; older results hold the first only."""


def read_results(folder: Path) -> dict[Path, dict[str, Any]]:
    """Read the result of every finished seed of a domain, by its folder `<method>/seed-<n>`.

    Raises:
        FileFormatError: If one is damaged.
    """
    found = {}
    for path in sorted(folder.glob(f"*/seed-*/{RESULT}"), key=_seed_of):
        result = read_json(path, advice=_ADVICE)
        if "last" not in result or not isinstance(result.get("config"), dict):
            raise FileFormatError(path, "is no result", _ADVICE)
        found[path.parent] = result
    return found


def require_alike(results: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse seeds that no table should show side by side.

    Seeds of one method differ in nothing but their number, device, updates and how often they were
    evaluated, saved and logged; those of different methods also in what makes the method.

    Args:
        results: What `result.json` holds, or will hold, by folder `<method>/seed-<n>`.

    Raises:
        ConfigError: If settings cannot be read.
        FileFormatError: If two of them differ otherwise; it names both and the setting.
    """
    first: dict[tuple[str, str], tuple[object, Path]] = {}
    for folder, result in results.items():
        method = folder.parent.name
        for name, value in _settings_of(method, result, folder).items():
            owner = method if name in ("update.method", "update.actor") else ""
            expected, other = first.setdefault((owner, name), (value, folder))
            if value != expected:
                problem = f"has {name} {value!r}, {other / RESULT} has {expected!r}"
                advice = "compare unlike runs in folders of their own: safectl bench fb --folder"
                raise FileFormatError(folder / RESULT, problem, advice)


def _settings_of(method: str, result: Mapping[str, Any], folder: Path) -> dict[str, object]:
    """Return all settings and facts that a seed depends on, those of `update` by dotted names."""
    stored = {**result["config"], "device": "cpu"}  # this machine may lack the device
    found = to_mapping(read_settings(stored, source=str(folder / RESULT)))
    update, known = found.pop("update"), METHODS.get(method)
    if known is not None and known.update is None:
        update = {name: update[name] for name in known.reads}
    found |= {f"update.{name}": value for name, value in update.items()}
    found |= {name: result[name] for name in _DATA if name in result}
    return {name: value for name, value in found.items() if name not in _FREE}


def _seed_of(path: Path) -> tuple[str, int]:
    return path.parts[-3], int(path.parent.name.removeprefix("seed-"))
