"""Specification, seeds, configuration, files and checkpoints."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from safectl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from safectl.config import from_command_line, load_toml, to_mapping
from safectl.errors import (
    ConfigError,
    FileFormatError,
    MissingExtra,
    NonFiniteError,
    RangeError,
    SpecMismatch,
    StorageError,
    UnknownNameError,
)
from safectl.files import new_file, new_folder, read_json, write_json
from safectl.seed import derive, numpy_generator, torch_generator
from safectl.spec import Signal, Spec, require_same, spec_from_json

SPEC = Spec(
    observation=(Signal("position", "m", -1.0, 1.0), Signal("speed", "m/s", -2.0, 2.0)),
    action=(Signal("force", "N", -3.0, 3.0),),
    period=0.05,
)


def test_spec_survives_json_and_keeps_its_digest():
    again = spec_from_json(SPEC.to_json())
    assert again == SPEC
    assert again.digest() == SPEC.digest()
    assert 0 <= SPEC.digest() < 2**32


def test_digest_changes_with_every_part():
    others = [
        Spec(SPEC.observation, SPEC.action, 0.06),
        Spec(SPEC.observation, (Signal("force", "kN", -3.0, 3.0),), 0.05),
        Spec(SPEC.observation, (Signal("force", "N", -3.0, 3.5),), 0.05),
        Spec(SPEC.observation[::-1], SPEC.action, 0.05),
    ]
    assert len({spec.digest() for spec in [SPEC, *others]}) == 5


def without_type_checks(code):
    """Run code as users do: these tests check argument types, which production does not."""
    head = "import math\nimport numpy as np\nfrom safectl.errors import RangeError\n"
    subprocess.run([sys.executable, "-c", head + code], check=True, timeout=60)


def test_equal_specifications_have_one_digest():
    without_type_checks("""
from safectl.spec import Signal, Spec
plain = Spec((Signal("x", "m", 0.0, 1.0),), (Signal("u", "N", -1.0, 0.5),), 1.0)
action = Signal("u", "N", np.float32(-1), np.float64(0.5))
other = Spec([Signal("x", "m", -0.0, 1)], [action], 1)
assert other == plain
assert other.to_json() == plain.to_json()
assert other.digest() == plain.digest()
assert hash(other) == hash(plain)
""")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"low": -3.0', '"low": 4.0'),
        ('"low": -3.0', '"low": "-3"'),
        ('"low": -3.0', '"low": -Infinity'),
        ('"low": -3.0', '"low": -1' + "0" * 400),
        ('"period": 0.05', '"period": 0'),
        ('"period": 0.05', '"period": true'),
        ('"name": "force"', '"name": ""'),
    ],
)
def test_a_specification_file_that_breaks_a_rule_is_a_file_error(old, new):
    assert old in SPEC.to_json()
    with pytest.raises(FileFormatError, match=r"robot\.json: is not a specification"):
        spec_from_json(SPEC.to_json().replace(old, new), "robot.json")


def test_infinite_observation_bounds_survive_json():
    spec = Spec((Signal("x", "m", -float("inf"), float("inf")),), SPEC.action, 0.1)
    assert spec_from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Signal("", "m", 0.0, 1.0), "non-empty"),
        (lambda: Signal("x", "m", 1.0, 1.0), "low < high"),
        (lambda: Signal("x", "m", float("nan"), 1.0), "low < high"),
        (lambda: Spec(SPEC.observation, SPEC.action, 0.0), "positive number of seconds"),
        (lambda: Spec(SPEC.observation, SPEC.action, float("nan")), "positive number"),
        (lambda: Spec((), SPEC.action, 0.1), "at least one signal"),
        (lambda: Spec(SPEC.observation * 2, SPEC.action, 0.1), "no name twice"),
        (
            lambda: Spec(SPEC.observation, (Signal("u", "N", -1.0, float("inf")),), 0.1),
            "command without a limit",
        ),
    ],
)
def test_bad_specifications_are_refused(make, message):
    with pytest.raises(RangeError, match=message):
        make()


def test_require_same_names_the_first_difference():
    other = Spec(SPEC.observation, (Signal("force", "N", -2.0, 3.0),), 0.05)
    with pytest.raises(SpecMismatch, match=r"action\[0\] is .*-3.0.* against .*-2.0"):
        require_same(SPEC, other, left_name="checkpoint", right_name="robot")
    require_same(SPEC, SPEC, left_name="checkpoint", right_name="robot")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1, "observation": 3}', "null"],
)
def test_text_that_is_no_specification_is_refused(text):
    with pytest.raises(FileFormatError):
        spec_from_json(text)


def test_seeds_are_repeatable_and_separate():
    assert derive(3, "a") == derive(3, "a")
    assert len({derive(s, p) for s in range(20) for p in "ab"}) == 40
    one, two = torch_generator(1, "noise"), torch_generator(1, "noise")
    assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=two))
    assert numpy_generator(1, "x").random() != numpy_generator(1, "y").random()
    with pytest.raises(RangeError, match="seed"):
        derive(-1, "a")


def test_what_is_no_integer_is_no_seed():
    without_type_checks("""
from safectl.seed import derive
assert derive(np.int64(3), "a") == derive(3, "a")
for seed in (math.nan, 1.5, 1.0, math.inf, "1"):
    try:
        derive(seed, "a")
    except RangeError:
        continue
    raise AssertionError(seed)
""")


@dataclass(frozen=True)
class Inner:
    count: int = 1
    """How many."""


@dataclass(frozen=True)
class Settings:
    rate: float = 1.0
    """Rate [1/s]."""
    name: str = "a"
    """Name."""
    sizes: tuple[int, ...] = (64, 64)
    """Layer sizes."""
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate <= 0.0:
            raise RangeError("rate", value=self.rate, expected="a positive rate [1/s]")


def test_toml_holds_differences_only(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('name = "b"\nsizes = [8, 4]\n[inner]\ncount = 5\n')
    settings = load_toml(Settings(), path)
    assert settings == Settings(name="b", sizes=(8, 4), inner=Inner(5))
    assert json.dumps(to_mapping(settings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1.0", "unknown key 'rat'; did you mean 'rate'"),
        ("[inner]\ncunt = 1", "did you mean 'count'"),
        ('rate = "3"', "rate: .*valid number"),
        ("rate = -1.0", "positive rate"),
        ("rate = nan", "NaN is not a setting"),
        ("sizes = [1, nan]", "sizes: NaN is not a setting"),
        ("sizes = [[1, [nan]]]", "sizes: NaN is not a setting"),
        ("sizes = 3", "sizes"),
        ('sizes = [1, "a"]', "sizes.1"),
        ("[name]\nx = 1", "name is a value, not a table|name"),
        ("inner = 3", "inner"),
        ("rate = [", "is not TOML"),
    ],
)
def test_bad_toml_gives_one_clear_error(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_toml(Settings(), path)


def test_missing_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        load_toml(Settings(), tmp_path / "absent.toml")


def test_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('rate = 2.0\nname = "file"\n')
    arguments = ["--config", str(path), "--name", "line", "--inner.count", "3"]
    settings = from_command_line(Settings(), arguments, program="p", description="d")
    assert settings == Settings(rate=2.0, name="line", inner=Inner(3))


def test_the_file_may_follow_an_equals_sign(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("rate = 2.0\n")
    arguments = ["--name", "line", f"--config={path}"]
    settings = from_command_line(Settings(), arguments, program="p", description="d")
    assert settings == Settings(rate=2.0, name="line")
    for missing in (["--config"], ["--config="]):
        with pytest.raises(ConfigError, match="needs the path"):
            from_command_line(Settings(), missing, program="p", description="d")


def test_command_line_refuses_unknown_options(capsys):
    with pytest.raises(SystemExit) as stop:
        from_command_line(Settings(), ["--nonsense", "1"], program="p", description="d")
    assert stop.value.code == 2
    assert "nonsense" in capsys.readouterr().err


def checkpoint(**changes):
    values = {"spec": SPEC, "config": {"layers": [2, 1]}, "weights": {"w": torch.randn(3, 2)}}
    return Checkpoint(**(values | changes))


def test_checkpoint_round_trip(tmp_path):
    saved = checkpoint(metrics={"return": 1.5})
    save_checkpoint(saved, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c", expected=SPEC)
    assert torch.equal(loaded.weights["w"], saved.weights["w"])
    assert loaded.config == {"layers": [2, 1]}
    assert loaded.metrics == {"return": 1.5}
    assert loaded.provenance["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_checkpoint_with_another_spec_is_refused(tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "c")
    with pytest.raises(SpecMismatch, match=r"period 0.05 s against 0.1 s"):
        load_checkpoint(tmp_path / "c", expected=Spec(SPEC.observation, SPEC.action, 0.1))


def test_checkpoint_with_nan_weights_is_not_written(tmp_path):
    with pytest.raises(NonFiniteError, match="weight w holds 1 non-finite"):
        save_checkpoint(checkpoint(weights={"w": torch.tensor([1.0, torch.nan])}), tmp_path / "c")
    assert not any(tmp_path.iterdir())


def test_checkpoint_is_not_overwritten_unless_asked(tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "c")
    with pytest.raises(StorageError, match="exists already"):
        save_checkpoint(checkpoint(), tmp_path / "c")
    save_checkpoint(checkpoint(config={"new": 1}), tmp_path / "c", replace=True)
    assert load_checkpoint(tmp_path / "c").config == {"new": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize(
    "part",
    [
        *("config.json", "spec.json", "weights.safetensors", "metrics.json", "provenance.json"),
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "foreign"])
def test_damaged_checkpoints_are_refused(tmp_path, part, damage):
    save_checkpoint(checkpoint(metrics={"a": 1}), tmp_path / "c")
    path = tmp_path / "c" / part
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(FileFormatError, match=part.replace(".", r"\.")):
        load_checkpoint(tmp_path / "c")


def test_checkpoint_of_a_later_version_is_refused(tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "c")
    path = tmp_path / "c" / "config.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(FileFormatError, match=r"has version 3.*reads version 2"):
        load_checkpoint(tmp_path / "c")


def test_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(checkpoint(config={"old": 1}), tmp_path / "c")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device; free space"):
        save_checkpoint(checkpoint(config={"new": 1}), tmp_path / "c", replace=True)
    assert load_checkpoint(tmp_path / "c").config == {"old": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_an_exception_inside_new_folder_leaves_nothing(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "a") as draft:
            (draft / "x").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(tmp_path.iterdir())


def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path):
    save_checkpoint(checkpoint(metrics={"a": 1}), tmp_path / "c")
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "c").iterdir()):
        data = path.read_bytes()
        for at in rng.integers(0, len(data), size=20):
            changed = bytearray(data)
            changed[at] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(changed)
            with pytest.raises(FileFormatError):
                load_checkpoint(tmp_path / "c")
        path.write_bytes(data)
    load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"version": 7}}, "reserved key 'version'"),
        ({"config": {"path": Path("x")}}, "config of the checkpoint: cannot be written as JSON"),
        ({"metrics": {"return": math.nan}}, "metrics of the checkpoint: cannot be written"),
        ({"provenance": {"who": {1, 2}}}, "provenance of the checkpoint: cannot be written"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        save_checkpoint(checkpoint(**changes), tmp_path / "deep" / "c")
    assert not any(tmp_path.iterdir())


def test_tied_and_strided_weights_are_saved(tmp_path):
    weight = torch.randn(3, 2)
    weights = {"a": weight, "b": weight, "c": weight.T, "d": weight[1:, :1]}
    save_checkpoint(checkpoint(weights=weights), tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c").weights
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_non_finite_weights_and_bad_specifications_on_disk_are_refused(tmp_path):
    folder = tmp_path / "c"

    def exchange(name, old, new):
        save_checkpoint(checkpoint(weights={"w": torch.ones(1)}), folder, replace=True)
        path, manifest = folder / name, folder / "manifest.json"
        before = path.read_bytes()
        after = before.replace(old, new)
        assert before != after
        path.write_bytes(after)
        digests = (hashlib.sha256(data).hexdigest() for data in (before, after))
        manifest.write_text(manifest.read_text().replace(*digests))

    exchange("weights.safetensors", np.float32(1).tobytes(), np.float32(np.nan).tobytes())
    with pytest.raises(FileFormatError, match="w is not finite"):
        load_checkpoint(folder)
    exchange("spec.json", b"-3.0", b"+9.0".replace(b"+", b" "))
    with pytest.raises(FileFormatError, match=r"spec\.json: is not a specification"):
        load_checkpoint(folder)


def fail_renames(monkeypatch, failing):
    """Let the renames with these numbers fail; returns the list of all."""
    rename, seen = Path.rename, []

    def limited(self, target):
        seen.append(self)
        if len(seen) in failing:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", limited)
    return seen


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_leaves_the_old_folder_and_no_draft(tmp_path, monkeypatch, failing):
    save_checkpoint(checkpoint(config={"old": 1}), tmp_path / "c")
    seen = fail_renames(monkeypatch, {failing})
    with pytest.raises(StorageError, match="Input/output error"):
        save_checkpoint(checkpoint(config={"new": 1}), tmp_path / "c", replace=True)
    assert len(seen) >= failing
    assert load_checkpoint(tmp_path / "c").config == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_old_folder_is_never_deleted_while_it_is_the_only_one(tmp_path, monkeypatch):
    save_checkpoint(checkpoint(config={"old": 1}), tmp_path / "c")
    fail_renames(monkeypatch, {2, 3})
    with pytest.raises(StorageError):
        save_checkpoint(checkpoint(config={"new": 1}), tmp_path / "c", replace=True)
    (aside,) = tmp_path.iterdir()
    assert load_checkpoint(aside / "c").config == {"old": 1}


def test_leftovers_of_a_killed_process_do_not_block(tmp_path):
    save_checkpoint(checkpoint(config={"old": 1}), tmp_path / "c")
    for name in (".c.old.1", ".c.old.x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c").write_text("left")
    for path in (tmp_path / f".c.old.{os.getpid()}",):
        path.mkdir()
        (path / "config.json").write_text("left")
    save_checkpoint(checkpoint(config={"new": 1}), tmp_path / "c", replace=True)
    assert load_checkpoint(tmp_path / "c").config == {"new": 1}


def test_a_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "thesis.txt").write_text("keep")
    with pytest.raises(StorageError, match="it is a file"):
        save_checkpoint(checkpoint(), tmp_path / "thesis.txt", replace=True)
    assert (tmp_path / "thesis.txt").read_text() == "keep"


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced = []

    def record(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, done()))

    def done():
        return (tmp_path / "c").exists() or (tmp_path / "a.json").exists()

    monkeypatch.setattr(os, "fsync", record)
    with new_folder(tmp_path / "c") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "x").write_text("x")
    assert {name for name, is_visible in synced if not is_visible} >= {"inner", "x"}
    assert synced[-1] == (tmp_path.name, True)
    synced.clear()
    (tmp_path / "c").rename(tmp_path / "d")
    write_json(tmp_path / "a.json", {})
    assert [is_visible for _, is_visible in synced] == [False, True]


def test_json_files_are_objects(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json", advice="-") == {"x": 1}
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(FileFormatError, match=r"holds no JSON object; write it again"):
        read_json(tmp_path / "b.json", advice="write it again")


def test_writing_into_a_file_as_a_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save_checkpoint(checkpoint(), tmp_path / "file" / "c")
    with pytest.raises(StorageError, match="could not be written"):
        write_json(tmp_path / "file" / "a.json", {})
    with (
        pytest.raises(StorageError, match="could not be written"),
        new_file(tmp_path / "file" / "deep" / "a.json"),
    ):
        pass


def test_messages_name_the_next_step():
    assert "pip install -e '.[agents]'" in str(MissingExtra("stable_baselines3", "agents"))
    error = UnknownNameError("environment", "PointHazrd", known=["PointHazard", "SpeedLimit"])
    assert "did you mean 'PointHazard'?" in str(error)
