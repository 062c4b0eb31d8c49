import pickle

import numpy as np
import pytest

from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl_agents.fb.episodes import (
    Episode,
    episode_paths,
    load_episode,
    load_transitions,
    save_episode,
)


def make_episode(number: int = 0, steps: int = 10, nx: int = 3) -> Episode:
    count = np.arange(steps + 1, dtype=np.float32)[:, None] + 100.0 * number
    return Episode(
        observation=np.repeat(count, nx, 1),
        action=np.concatenate([0.0 * count, 0.001 * count], 1),
        reward=count,
        discount=np.ones(steps + 1, np.float32),
        physics=np.repeat(count, 4, 1).astype(np.float64),
    )


def test_an_episode_comes_back_as_it_was_written(tmp_path):
    path = save_episode(make_episode(), tmp_path, 7)
    assert path.name == "episode_000007_10.npz"
    found, expected = load_episode(path), make_episode()
    for name in ("observation", "action", "reward", "discount", "physics"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("shape", [(11,), (11, 1), (11, 4)])
def test_the_three_shapes_of_rewards_are_read_and_unknown_keys_ignored(tmp_path, shape):
    path = tmp_path / "20211015T103023_0_10.npz"
    np.savez(
        path,
        observation=np.zeros((11, 3)),
        action=np.zeros((11, 2)),
        reward=np.ones(shape),
        discount=np.ones((11, 1)),
        skill=np.zeros((11, 16)),
    )
    episode = load_episode(path)
    assert episode.reward.shape == (11, 1 if len(shape) == 1 else shape[1])
    assert episode.physics is None


def test_transitions_pair_the_rows_as_the_format_says(tmp_path):
    for number in range(4):
        save_episode(make_episode(number), tmp_path, number)
    found = load_transitions(tmp_path, count=1000)
    assert len(found.action) == 40
    assert np.array_equal(found.next_observation, found.observation + 1.0)
    assert np.allclose(found.action[:, 1], 0.001 * found.next_observation[:, 0])
    assert np.array_equal(found.physics[:, 0], found.next_observation[:, 0])


def test_a_subset_depends_on_its_seed_and_holds_no_transition_twice(tmp_path):
    for number in range(4):
        save_episode(make_episode(number), tmp_path, number)
    first, again, other = (
        load_transitions(tmp_path, count=25, seed=s).observation[:, 0] for s in (42, 42, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first)) == 25
    contiguous = load_transitions(tmp_path, count=15, subset="contiguous")
    assert contiguous.observation[-1, 0] == 104.0
    with pytest.raises(RangeError, match="transitions"):
        load_transitions(tmp_path, count=0)


def test_files_that_are_no_episodes_are_refused(tmp_path):
    good = {"observation": np.zeros((3, 2)), "action": np.zeros((3, 1))}
    path = tmp_path / "episode_000000_2.npz"
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(FileFormatError, match="is no episode"):
        load_episode(path)
    np.savez(path, **{**good, "observation": np.array([{"evil": 1}], dtype=object)})
    with pytest.raises(FileFormatError, match="allow_pickle"):
        load_episode(path)
    np.savez(path, observation=good["observation"])
    with pytest.raises(FileFormatError, match="action"):
        load_episode(path)
    np.savez(path, **{**good, "action": np.zeros((2, 1))})
    with pytest.raises(FileFormatError, match="expected"):
        load_episode(path)
    np.savez(path, **{**good, "observation": np.full((3, 2), np.nan)})
    with pytest.raises(NonFiniteError, match="observation"):
        load_episode(path)


@pytest.mark.parametrize("offset", [0, 30, 71, 197, 798])
def test_a_flipped_byte_is_a_damaged_file(tmp_path, offset):
    path = save_episode(make_episode(), tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="is no episode"):
        load_episode(path)


class Trap:
    """Something whose unpickling would run code."""

    def __reduce__(self):
        return pytest.fail, ("a pickle of a stranger was opened",)


@pytest.mark.parametrize("name", ["observation", "action", "reward", "discount", "physics"])
def test_a_pickled_object_of_a_stranger_is_never_opened(tmp_path, name):
    arrays = {"observation": np.zeros((3, 2)), "action": np.zeros((3, 1))}
    path = tmp_path / "episode_000000_2.npz"
    np.savez(path, **{**arrays, name: np.array([Trap()] * 3, dtype=object)})
    with pytest.raises(FileFormatError, match="allow_pickle"):
        load_episode(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileFormatError, match="is no episode"):
        load_episode(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_a_damaged_file(tmp_path, share):
    path = save_episode(make_episode(), tmp_path, 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match="is no episode"):
        load_episode(path)


@pytest.mark.parametrize("name", ["reward", "discount"])
@pytest.mark.parametrize("rows", [2, 4, 6])
def test_rewards_and_discounts_belong_to_rows(tmp_path, name, rows):
    path = tmp_path / "episode_000000_2.npz"
    arrays = {"observation": np.zeros((3, 2)), "action": np.zeros((3, 1))}
    np.savez(path, **arrays, **{name: np.zeros(rows)})
    with pytest.raises(FileFormatError, match=name):
        load_episode(path)


@pytest.mark.parametrize("name", ["reward", "discount", "physics"])
def test_nan_in_any_array_is_refused(tmp_path, name):
    episode = make_episode()
    getattr(episode, name)[3] = np.nan
    with pytest.raises(NonFiniteError, match=name):
        load_episode(save_episode(episode, tmp_path, 0))


def test_folders_that_hold_no_set_of_episodes_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="safectl collect"):
        episode_paths(tmp_path)
    save_episode(make_episode(0), tmp_path, 0)
    save_episode(make_episode(1, nx=5), tmp_path, 1)
    with pytest.raises(FileFormatError, match="different sizes"):
        load_transitions(tmp_path)
    save_episode(make_episode(2), tmp_path, 2).rename(tmp_path / "episode_000001_99.npz")
    with pytest.raises(FileFormatError, match="its name says 99"):
        load_transitions(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["a_b_c", "episode__5", "episode_0_", "episode_\u00b2_5", "episode_0_0", "episode_0", "x"],
)
def test_a_name_of_another_form_is_one_clear_error(tmp_path, name):
    save_episode(make_episode(), tmp_path, 0)
    (tmp_path / f"{name}.npz").write_bytes(b"")
    with pytest.raises(FileFormatError, match=rf"{name}\.npz: .*another form; name it episode_"):
        episode_paths(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("action", np.full((3, 1), 1.001), r"actions from 1.001 to 1.001; scale them to \[-1, 1\]"),
        ("action", np.full((3, 1), -1.00001), r"scale them to \[-1, 1\]"),
        ("discount", np.full(3, 1.1), r"scale them to \[0, 1\]"),
        ("discount", np.full(3, -0.1), r"scale them to \[0, 1\]"),
        ("observation", np.zeros((3, 2), complex), "observation of type complex128"),
        ("action", np.full((3, 1), "0.5"), "action of type <U3"),
        ("observation", np.zeros((3, 0)), r"observation of shape \(3, 0\)"),
        ("action", np.zeros((3, 0)), r"action of shape \(3, 0\)"),
        ("reward", np.zeros((3, 0)), r"reward of shape \(3, 0\)"),
    ],
)
def test_arrays_that_no_model_can_learn_from_are_refused(tmp_path, name, value, problem):
    path = tmp_path / "episode_000000_2.npz"
    arrays = {"observation": np.zeros((3, 2)), "action": np.zeros((3, 1))}
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(FileFormatError, match=problem):
        load_episode(path)


def test_what_belongs_to_the_reset_and_what_rounding_adds_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "20211015T103023_0_2.npz"
    action, discount = np.array([[9.0], [1.0 + 5e-7], [-1.0]]), np.array([5.0, 1.0, 0.0])
    np.savez(path, observation=np.zeros((3, 2)), action=action, discount=discount)
    assert load_episode(path).steps == 2
