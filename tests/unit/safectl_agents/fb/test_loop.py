"""What a training does about numbers that go wrong, and about damaged folders."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl.models import UpdateSettings
from safectl_agents.bench.fb_visits import SHIPPED
from safectl_agents.fb import loop
from safectl_agents.fb.collect import CollectConfig
from safectl_agents.fb.evaluate import Policies, play
from safectl_agents.fb.experiment import _standing
from safectl_agents.fb.loop import fit, restore
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import load_run
from safectl_agents.training_state import checkpoints

CONFIG = FBConfig(steps=4, evaluate_every=2, episodes=2, checkpoint_every=2, log_every=1)


class Counter:
    """A method whose only weight counts its updates, up to where it breaks."""

    def __init__(self, *, breaks_at: int = 10**9, mass: float | None = None) -> None:
        self.weight, self.breaks_at, self.mass = torch.zeros(3), breaks_at, mass

    def update(self, step: int) -> dict[str, torch.Tensor]:
        self.weight = self.weight + 1.0
        if step + 1 >= self.breaks_at:
            self.weight[1] = float("nan")
        metrics = {"loss": torch.tensor(float(step))}
        return metrics if self.mass is None else {"mass": torch.tensor(self.mass), **metrics}

    def policies(self) -> Policies:
        return Policies(("reach_top_left",), lambda rows: self.weight[0] * rows[..., :2])

    def state(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def load_state(self, named) -> None:
        self.weight = named["weight"]


@pytest.fixture
def unplayed(monkeypatch):
    scored: list[int] = []
    monkeypatch.setattr(loop, "_evaluate", lambda *_: scored.append(1) or {"a": 0.0})
    return scored


def test_weights_are_checked_before_they_are_played(tmp_path, unplayed):
    with pytest.raises(NonFiniteError, match=r"weight holds 1 .* lower the learning rates"):
        fit(Counter(breaks_at=3), replace(CONFIG, evaluate_every=3), tmp_path)
    assert unplayed == []


def test_an_action_that_is_no_number_is_named_with_its_cause():
    policies = Policies(("reach_top_left",), lambda rows: rows[..., :2] * float("inf") * 0.0)
    with pytest.raises(NonFiniteError, match=r"action holds 4 .* lower the learning rates"):
        play(policies, "point_mass_maze", 2)


@pytest.mark.parametrize(
    ("heads", "mass", "advice"),
    [
        ("min", -0.5, "--update.target-heads mean"),
        ("min", 201.0, "--update.target-heads mean"),
        ("mean", -0.5, "lower learning rates"),
        ("min", 199.0, ""),
        ("min", None, ""),
    ],
)
def test_a_mass_out_of_its_range_is_told_once_after_the_warm_up(
    tmp_path, unplayed, monkeypatch, caplog, heads, mass, advice
):
    monkeypatch.setattr(loop, "_WARM_UP", 1)
    config = replace(CONFIG, update=UpdateSettings(target_heads=heads))
    fit(Counter(mass=mass), config, tmp_path)
    told = [record.getMessage() for record in caplog.records if record.name == loop.__name__]
    assert len(told) == bool(advice)
    if advice:
        assert f"mass is {mass:.3g} at update 2 and should approach 100" in told[0]
        assert advice in told[0]


def test_only_a_training_discards_the_draft_of_a_checkpoint(tmp_path, unplayed):
    fit(Counter(), CONFIG, tmp_path)
    draft = tmp_path / "checkpoints" / ".step-0000000006.abcd"
    draft.mkdir()
    assert restore(Counter().load_state, tmp_path, "cpu") == 4
    assert draft.exists()
    fit(Counter(), replace(CONFIG, steps=6), tmp_path)
    assert not draft.exists()


def saved(tmp_path):
    fit(Counter(), CONFIG, tmp_path)
    return checkpoints(tmp_path / "checkpoints")[-1]


def test_a_checkpoint_whose_weights_were_altered_is_refused(tmp_path, unplayed):
    place = saved(tmp_path) / "state.safetensors"
    content = bytearray(place.read_bytes())
    content[-1] ^= 0x01
    place.write_bytes(content)
    with pytest.raises(FileFormatError, match="is truncated or altered"):
        restore(Counter().load_state, tmp_path, "cpu")


def test_a_checkpoint_of_an_older_version_is_read_and_checked_for_nan(tmp_path, unplayed):
    place = saved(tmp_path)
    (place / "state.json").write_text('{"step": 4}')
    assert restore(Counter().load_state, tmp_path, "cpu") == 4
    save_file({"weight": torch.tensor([1.0, float("nan")])}, place / "state.safetensors")
    with pytest.raises(FileFormatError, match="NaN or infinity in weight"):
        restore(Counter().load_state, tmp_path, "cpu")


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"step": "4"}', '{"step": -1}'])
def test_a_damaged_state_is_named(tmp_path, unplayed, content):
    (saved(tmp_path) / "state.json").write_text(content)
    with pytest.raises(FileFormatError, match=r"state\.json|version"):
        restore(Counter().load_state, tmp_path, "cpu")


def test_the_shipped_model_is_read_with_its_digest():
    assert "sha256" in (checkpoints(SHIPPED / "checkpoints")[-1] / "state.json").read_text()
    assert load_run(SHIPPED)[2] == 36_000


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"step,a\nxx,1\n"])
def test_a_damaged_log_is_named_and_the_bar_of_a_training_goes_on(tmp_path, unplayed, content):
    fit(Counter(), CONFIG, tmp_path)
    assert _standing(tmp_path) == (4, "score 0.0")
    (tmp_path / "evaluations.csv").write_bytes(content)
    assert _standing(tmp_path) == (4, "")
    (tmp_path / "updates.csv").write_bytes(content)
    assert _standing(tmp_path) == (0, "")
    with pytest.raises(FileFormatError, match=r"updates\.csv: is no log"):
        fit(Counter(), replace(CONFIG, steps=6), tmp_path)


@pytest.mark.parametrize("make", [FBConfig, CollectConfig])
@pytest.mark.parametrize("name", ["foo", "cuda"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(monkeypatch, make, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RangeError, match="device"):
        make(device=name)
