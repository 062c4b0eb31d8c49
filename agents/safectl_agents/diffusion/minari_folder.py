"""A folder in Minari's format, written whole or not at all."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import minari
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from safectl.files import new_folder
from safectl.spec import Spec
from safectl_envs.spaces import box_of


def write_minari(
    path: Path, episodes: Iterable[EpisodeBuffer], spec: Spec, facts: Mapping[str, object]
) -> int:
    """Write episodes and return the number of their steps.

    Args:
        path: Folder to make; below the folder of Minari's datasets it is found by its name.
        episodes: In order.
        spec: Signals, for the spaces.
        facts: Metadata, JSON values.

    Raises:
        StorageError: If the folder exists or the disk refuses.
    """
    with new_folder(path) as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"minari\.")
        storage = MinariStorage.new(draft / "data", box_of(spec.observation), box_of(spec.action))
        storage.update_episodes(episodes)
        storage.update_metadata({"minari_version": minari.__version__, "requirements": [], **facts})
        return int(storage.total_steps)
