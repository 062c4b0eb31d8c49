"""Whether a change of a safeguard on disk is seen, wherever it is."""

import os

import pytest

from safectl_ros.fingerprint import fingerprint


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "run" / "seed").mkdir(parents=True)
    (tmp_path / "run" / "seed" / "model.safetensors").write_bytes(b"1234")
    (tmp_path / "clip.toml").write_text("kind = 'clip'")
    (tmp_path / "visits.toml").write_text("kind = 'visit_limit'\nrun = 'run'\nlimit = 0.1")
    path = tmp_path / "chain.toml"
    path.write_text("kind = 'chain'\nfiles = ['clip.toml', 'visits.toml', 'chain.toml']")
    return path


@pytest.mark.parametrize("name", ["chain.toml", "clip.toml", "run/seed/model.safetensors"])
def test_a_change_of_any_file_is_seen(chain, name):
    before, place = fingerprint(chain), chain.parent / name
    assert fingerprint(chain) == before
    os.utime(place, ns=(1, 1))
    assert fingerprint(chain) != before


def test_a_file_that_is_gone_or_new_is_seen(chain):
    before = fingerprint(chain)
    (chain.parent / "run" / "new.json").write_text("{}")
    after = fingerprint(chain)
    assert after != before
    (chain.parent / "clip.toml").unlink()
    assert fingerprint(chain) not in (before, after)


def test_what_is_no_toml_names_nothing(chain):
    chain.write_bytes(b"\xff")
    assert list(fingerprint(chain)) == [chain.resolve()]
