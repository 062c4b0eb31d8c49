"""Constraints on the action, written in TOML as numbers and signal names, stated in CVXPY.

[[constraints]]                      # |speed| + 0.5 |turn_rate| <= 1
norm = "l1"
bound = 1.0
terms = [{ action = { speed = 1.0 } }, { action = { turn_rate = 0.5 } }]

[[constraints]]                      # speed + 0.8 * (observed speed) <= 1.5
bound = 1.5
terms = [{ action = { speed = 1.0 }, observation = { speed = 0.8 } }]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.norm1 import norm1
from cvxpy.atoms.norm_inf import norm_inf
from cvxpy.constraints.constraint import Constraint
from pydantic import ConfigDict
from torch import Tensor

from safectl.errors import RangeError, UnknownNameError
from safectl.safeguards import Fallback
from safectl.safeguards.convex import ConvexGuard
from safectl.solve.convex import ConvexSet
from safectl.spec import Signal


@dataclass(frozen=True)
class Term:
    """action . u + observation . x + constant, coefficients by signal name."""

    action: dict[str, float] = field(default_factory=dict)
    observation: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Stated:
    """The norm of some terms is at most a bound; without a norm there is one term."""

    bound: float
    terms: tuple[Term, ...]
    norm: Literal["none", "l1", "linf"] = "none"

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def state_guard(constraints: Sequence[Stated], fallback: Fallback) -> ConvexGuard:
    """Build the safeguard that keeps stated constraints within the limits of the fallback.

    Raises:
        UnknownNameError: If a constraint names a signal that there is not.
        RangeError: If there is no constraint, or one has no or, without a norm, several terms.
    """
    spec = fallback.spec
    if not constraints:
        raise RangeError("constraints", value=(), expected="at least one")
    action, stated, matrices = cp.Variable(spec.nu), list[Constraint](), list[Tensor]()
    parameters = {}
    for index, constraint in enumerate(constraints):
        name = f"constraint_{index}"
        _check(name, constraint)
        rows = [_coefficients(term.action, spec.action) for term in constraint.terms]
        seen = [
            [*_coefficients(term.observation, spec.observation), term.constant]
            for term in constraint.terms
        ]
        parameters[name] = cp.Parameter(len(rows))
        matrices.append(torch.tensor(seen, dtype=torch.float64))
        terms = cp.Constant(np.array(rows)) @ action + parameters[name]
        stated.append(_norm(constraint.norm, terms) <= constraint.bound)
    convex = ConvexSet(action, parameters, stated, low=spec.action_low, high=spec.action_high)

    def features(observation: Tensor) -> Mapping[str, Tensor]:
        one = observation.new_ones(len(observation), 1)
        row = torch.cat([observation, one], dim=1)
        return {
            name: row @ matrix.T.to(row) for name, matrix in zip(parameters, matrices, strict=True)
        }

    count = len(constraints)
    claim = f"{count} stated constraint{'s' if count > 1 else ''} on the action"
    return ConvexGuard(convex, features, fallback=fallback, claim=claim)


def _check(name: str, constraint: Stated) -> None:
    count = len(constraint.terms)
    if count < 1 or (constraint.norm == "none" and count > 1):
        expected = "one term, or several and a norm: l1 or linf"
        raise RangeError(f"terms of {name}", value=count, expected=expected)


def _norm(name: str, terms: cp.Expression) -> cp.Expression:
    if name == "none":
        return terms
    return norm1(terms) if name == "l1" else norm_inf(terms)


def _coefficients(named: Mapping[str, float], signals: Sequence[Signal]) -> list[float]:
    known = [signal.name for signal in signals]
    for name in named:
        if name not in known:
            raise UnknownNameError("signal", name, known=known)
    return [named.get(name, 0.0) for name in known]
