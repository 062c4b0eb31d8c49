"""Trainings side by side: a killed process is told, a folder has one writer."""

import os
from functools import partial
from subprocess import run
from sys import executable

import pytest
from rich.console import Console

from safectl.errors import ConfigError, StorageError
from safectl_agents.one_writer import one_writer
from safectl_agents.pool import TrainingLost, Work, run_side_by_side


def _unknown():
    return 0, ""


def test_a_killed_training_says_how_to_go_on():
    work = Work("a seed", 1, partial(os._exit, 9), _unknown)
    with pytest.raises(TrainingLost, match="run the command again, with fewer processes"):
        run_side_by_side([work], jobs=1, console=Console(quiet=True))


def _refuse():
    raise ConfigError("seed 0", "is refused")


def test_an_error_of_a_training_is_told_as_it_is():
    works = [Work("a seed", 1, _refuse, _unknown), Work("another", 1, _refuse, _unknown)]
    with pytest.raises(ConfigError, match="seed 0: is refused"):
        run_side_by_side(works, jobs=1, console=Console(quiet=True))


def test_a_second_writer_is_refused_and_the_next_one_is_not(tmp_path):
    folder = tmp_path / "seed-0"
    refused = pytest.raises(ConfigError, match="another command writes there")
    with one_writer(folder), refused, one_writer(folder):
        pytest.fail("two writers")
    with one_writer(folder):
        pass


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path):
    words = (
        "import os, pathlib, sys; from safectl_agents.one_writer import one_writer\n"
        "with one_writer(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert run([executable, "-c", words, tmp_path], check=False).returncode == -9
    with one_writer(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), one_writer(tmp_path / "file" / "seed-0"):
        pytest.fail("a folder within a file")
