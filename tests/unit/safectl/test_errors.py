"""Errors keep message and facts on the way between processes."""

import pickle

import pytest

from safectl import errors
from safectl.errors import SafectlError

EXAMPLES = (
    errors.ConfigError("a file", "is wrong"),
    errors.FileFormatError("a file", "is torn", "make it again"),
    errors.StorageError("a file", "disk full"),
    errors.RangeError("seed", value=-1, expected=">= 0"),
    errors.ShapeError("action", expected=("batch", 2), got=(3,)),
    errors.NonFiniteError("action", count=1, size=2, advice="look"),
    errors.UnknownNameError("method", "acz", known=["acs"]),
    errors.TaskNotInferable(labels=3, nonzero=0),
)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_from_another_process_as_it_was(error):
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert type(back) is type(error)
    assert isinstance(back, SafectlError)
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__
