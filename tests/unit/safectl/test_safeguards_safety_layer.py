import pytest
import torch
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError
from safectl.safeguards import (
    AffineSignalModel,
    Brake,
    Calibration,
    FitOptions,
    FittedSignal,
    Least,
    SafetyLayer,
    fit_affine_signal,
)
from safectl.safeguards.fit_signal import Transitions, calibrate
from safectl.spec import Signal, Spec
from safectl.types import Status
from tests.finite_differences import jacobian

SPEC = Spec(
    observation=tuple(Signal(name, "m", -9.0, 9.0) for name in ("p", "v")),
    action=(Signal("u", "m/s", -1.0, 1.0),),
    period=0.1,
)
OPTIONS = FitOptions(hidden=(32,), steps=600, batch=128, learning_rate=1e-2, report_every=100)
LIMIT = 0.8


def data(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signal y[k+1] = p^2 + 0.3 (1 + v^2) u + noise."""
    generator = torch.Generator().manual_seed(seed)
    observation = 2.0 * torch.rand(count, 2, generator=generator) - 1.0
    action = 2.0 * torch.rand(count, 1, generator=generator) - 1.0
    noise = 0.02 * torch.randn(count, 1, generator=generator)
    p, v = observation[:, :1], observation[:, 1:]
    return observation, action, p.square() + 0.3 * (1.0 + v.square()) * action + noise


@pytest.fixture(scope="module")
def fitted() -> FittedSignal:
    generator = torch.Generator().manual_seed(0)
    return fit_affine_signal(*data(4000, 1), generator=generator, options=OPTIONS)


def layer(fitted: FittedSignal, **options: object) -> SafetyLayer:
    return SafetyLayer(*fitted, spec=SPEC, limit=[LIMIT], **options)  # type: ignore[arg-type]  # tests of options


def test_the_model_learns_the_coefficients(fitted: FittedSignal) -> None:
    observation, action, signal = data(1000, 2)
    error = fitted.model.predict(observation, action) - signal
    assert error.square().mean().sqrt() < 0.04  # the noise alone is 0.02
    torch.testing.assert_close(
        fitted.model.forward(observation).gain[:, 0],
        0.3 * (1.0 + observation[:, 1:].square()),
        atol=0.1,
        rtol=0.0,
    )


def test_the_margin_covers_new_errors(fitted: FittedSignal) -> None:
    observation, action, signal = data(20000, 3)
    excess = signal - fitted.model.predict(observation, action) - fitted.calibration.margin
    rate = (excess > 0.0).float().mean()
    # 1000 held-out samples: the coverage deviates by sqrt(0.05 * 0.95 / 1000) = 0.007
    assert 0.02 < rate < 0.08


def test_the_model_is_affine_in_the_action_with_the_stated_gain() -> None:
    generator = torch.Generator().manual_seed(4)
    model = AffineSignalModel(3, 2, 2, hidden=(8,), generator=generator).double()
    observation = torch.randn(16, 3, dtype=torch.float64)
    action = torch.randn(16, 2, dtype=torch.float64)
    expected = jacobian(lambda u: model.predict(observation, u), action)
    torch.testing.assert_close(model.forward(observation).gain.detach(), expected)


def test_a_correction_is_the_closed_form(fitted: FittedSignal) -> None:
    observation, _, _ = data(64, 5)
    action = torch.ones(64, 1)
    decision = layer(fitted).filter(observation, action)
    offset, gain = fitted.model.forward(observation)
    bound = (LIMIT - fitted.calibration.margin - offset) / gain[..., 0]
    reachable = bound[:, 0] > -1.0
    expected = torch.minimum(action, bound)
    torch.testing.assert_close(decision.action[reachable], expected[reachable], atol=1e-3, rtol=0.0)
    assert (decision.certificate.status == Status.CORRECTED.value).any()


def test_risk_is_delta_where_certified_and_one_in_the_fallback(fitted: FittedSignal) -> None:
    observation, action, _ = data(512, 6)
    decision = SafetyLayer(*fitted, spec=SPEC, limit=[0.0]).filter(observation, action)
    fallback = decision.certificate.status == Status.FALLBACK.value
    assert fallback.any()
    assert (~fallback).any()
    assert (decision.certificate.risk[fallback] == 1.0).all()
    assert (decision.certificate.risk[~fallback] == torch.tensor(0.05)).all()
    assert (decision.action[fallback] == -1.0).all()


def test_guarded_signals_exceed_the_limit_no_more_often_than_delta(fitted: FittedSignal) -> None:
    observation, action, _ = data(20000, 7)
    generator = torch.Generator().manual_seed(8)
    action = layer(fitted).filter(observation, action).action
    noise = 0.02 * torch.randn(len(action), 1, generator=generator)
    signal = observation[:, :1].square() + 0.3 * (1.0 + observation[:, 1:].square()) * action
    rate = (signal + noise > LIMIT).float().mean()
    assert rate < 0.06


def test_a_gradual_limit_is_approached_by_the_rate(fitted: FittedSignal) -> None:
    observation, _, _ = data(256, 9)
    action = torch.ones(256, 1)
    zero = layer(fitted, rate=0.25, signal=lambda seen: torch.zeros_like(seen[:, :1]))
    predicted = fitted.model.predict(observation, zero.filter(observation, action).action)
    certified = zero.filter(observation, action).certificate.status != Status.FALLBACK.value
    bound = 0.25 * LIMIT - fitted.calibration.margin
    assert certified.any()
    assert (predicted[certified] <= bound + 1e-6).all()


def test_a_signal_above_its_limit_must_be_back_in_one_step(fitted: FittedSignal) -> None:
    observation, _, _ = data(256, 9)
    action = torch.ones(256, 1)
    above = layer(fitted, rate=0.25, signal=lambda seen: torch.full_like(seen[:, :1], 9.0 * LIMIT))
    at_once = layer(fitted)
    theirs, ours = (guard.filter(observation, action) for guard in (at_once, above))
    assert torch.equal(theirs.action, ours.action)
    assert torch.equal(theirs.certificate.margin, ours.certificate.margin)


def test_a_proposal_is_clipped_before_it_is_projected() -> None:
    generator = torch.Generator().manual_seed(12)
    model = AffineSignalModel(2, 2, 1, hidden=(8,), generator=generator)
    spec = Spec(SPEC.observation, (*SPEC.action, Signal("w", "m/s", -1.0, 1.0)), 0.1)
    calibration = Calibration(torch.tensor([0.05]), 0.05, 100, torch.tensor([0.05]))
    guard = SafetyLayer(model, calibration, spec=spec, limit=[0.2])
    observation = torch.randn(512, 2, generator=generator)
    action = 3.0 * torch.randn(512, 2, generator=generator)
    raw = guard.filter(observation, action)
    clipped = guard.filter(observation, action.clamp(-1.0, 1.0))
    assert torch.equal(raw.action, clipped.action)
    assert torch.equal(raw.certificate.margin, clipped.certificate.margin)
    outside = (action.abs() > 1.0).any(-1)
    kept, ours = (decision.certificate.status == Status.KEPT.value for decision in (clipped, raw))
    assert torch.equal(ours, kept & ~outside)
    assert (kept & outside).any()
    infinite = guard.filter(observation, torch.full_like(action, torch.inf))
    assert (infinite.certificate.status == Status.FALLBACK.value).all()


def test_an_admissible_fallback_claims_no_risk_below_one(fitted: FittedSignal) -> None:
    decision = layer(fitted).filter(torch.zeros(1, 2), torch.full((1, 1), torch.nan))
    assert decision.certificate.margin[0] > 0.0
    assert decision.certificate.risk.tolist() == [1.0]


def test_at_rate_one_the_present_signal_does_not_matter(fitted: FittedSignal) -> None:
    observation, action, _ = data(64, 13)
    plain = layer(fitted).filter(observation, action)
    for value in (-1e30, torch.nan):
        told = layer(fitted, signal=lambda seen, value=value: torch.full_like(seen[:, :1], value))
        assert torch.equal(told.filter(observation, action).action, plain.action)


def test_a_signal_of_another_shape_is_refused(fitted: FittedSignal) -> None:
    wrong = layer(fitted, rate=0.5, signal=lambda seen: seen[:, 0])
    with pytest.raises(ShapeError, match="signal"):
        wrong.filter(torch.zeros(2, 2), torch.zeros(2, 1))


def test_a_held_out_transition_calibrates_and_does_not_train() -> None:
    def fit(changed: int | None) -> FittedSignal:
        observation, action, signal = data(80, 14)
        if changed is not None:
            signal[changed] += 3.0
        options = FitOptions(hidden=(4,), steps=3, batch=64, delta=0.2, held_out=0.5)
        generator = torch.Generator().manual_seed(0)
        return fit_affine_signal(observation, action, signal, generator=generator, options=options)

    weights, before = fit(None)
    held = 0
    for row in range(12):
        model, calibration = fit(row)
        same = [
            torch.equal(one, other)
            for one, other in zip(
                model.state_dict().values(), weights.state_dict().values(), strict=True
            )
        ]
        assert not torch.equal(calibration.error, before.error)
        held += all(same)
    assert 2 <= held <= 10  # half of the transitions, drawn by the generator


def test_least_takes_the_vertex_of_the_signal_nearest_its_limit() -> None:
    generator = torch.Generator().manual_seed(10)
    model = AffineSignalModel(2, 2, 2, hidden=(), generator=generator)
    model.load_state_dict(
        {
            **model.state_dict(),
            "layers.0.weight": torch.zeros(6, 2),
            "layers.0.bias": torch.tensor([1.0, 2.0, -1.0, 5.0, 0.0, 3.0]),
        }
    )
    spec = Spec(SPEC.observation, (*SPEC.action, Signal("w", "m/s", -1.0, 1.0)), 0.1)
    seen = torch.tensor([[0.0, 0.0], [torch.nan, 0.0]])
    near_first = Least(spec, model, limit=[0.0, 9.0]).action(seen)
    near_second = Least(spec, model, limit=[9.0, 0.0]).action(seen)
    torch.testing.assert_close(near_first, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(near_second, torch.tensor([[0.0, -1.0], [0.0, 0.0]]))


def test_fitting_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    options = FitOptions(hidden=(8,), steps=20, batch=32, report_every=10)
    calls: list[int] = []
    models = [
        fit_affine_signal(
            *data(400, 1),
            generator=torch.Generator().manual_seed(0),
            options=options,
            progress=lambda step, _: calls.append(step),
        ).model
        for _ in range(2)
    ]
    assert calls == [10, 20, 10, 20]
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_model_is_the_same_model(fitted: FittedSignal) -> None:
    copy = AffineSignalModel(2, 1, 1, hidden=(32,), generator=torch.Generator())
    copy.load_state_dict(fitted.model.state_dict())
    observation, action, _ = data(16, 11)
    torch.testing.assert_close(
        copy.predict(observation, action), fitted.model.predict(observation, action)
    )


def test_unusable_data_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    observation, action, signal = data(200, 1)
    signal[3] = torch.nan
    with pytest.raises(NonFiniteError, match="signal_next holds 1 non-finite"):
        fit_affine_signal(observation, action, signal, generator=generator)
    with pytest.raises(RangeError, match="samples"):
        fit_affine_signal(*data(40, 1), generator=generator)


@pytest.mark.parametrize("change", [{"delta": 0.0}, {"held_out": 1.0}, {"steps": 0}])
def test_options_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(RangeError):
        FitOptions(**change)  # type: ignore[arg-type]  # wrong on purpose


def test_parts_that_do_not_fit_are_refused(fitted: FittedSignal) -> None:
    model, calibration = fitted
    wide = Spec(SPEC.observation, (*SPEC.action, Signal("w", "m/s", -1.0, 1.0)), 0.1)
    with pytest.raises(ShapeError):
        SafetyLayer(model, calibration, spec=wide, limit=[1.0])
    with pytest.raises(ShapeError):
        SafetyLayer(model, calibration, spec=SPEC, limit=[1.0, 2.0])
    with pytest.raises(ShapeError):
        SafetyLayer(
            model,
            Calibration(torch.zeros(2), 0.05, 100, torch.zeros(2)),
            spec=SPEC,
            limit=[1.0],
        )
    for limit in (torch.nan, torch.inf):
        with pytest.raises(RangeError, match="limit"):
            SafetyLayer(model, calibration, spec=SPEC, limit=[limit])
    long = Spec((*SPEC.observation, Signal("q", "m", -9.0, 9.0)), SPEC.action, 0.1)
    with pytest.raises(ShapeError, match="observation"):
        SafetyLayer(model, calibration, spec=long, limit=[1.0])
    given = Brake(SPEC)
    with pytest.raises(ShapeError, match="limit"):
        SafetyLayer(model, calibration, spec=SPEC, limit=[1.0, 2.0], fallback=given)
    for rate in (0.0, 0.5, 2.0):
        with pytest.raises(RangeError):
            layer(fitted, rate=rate)


def test_the_scale_of_a_margin_does_not_depend_on_the_rows_that_calibrate() -> None:
    """Else a new row would not be exchangeable with them, and several signals promise too much."""
    generator = torch.Generator().manual_seed(5)
    model = AffineSignalModel(2, 1, 3, hidden=(4,), generator=generator)
    model.signal_deviation.copy_(torch.tensor([1.0, 2.0, 4.0]))
    rows = torch.zeros(99, 2), torch.zeros(99, 1)
    noise = torch.randn(99, 3, generator=generator) * torch.tensor([9.0, 0.1, 1.0])
    with torch.no_grad():
        held_out = Transitions(*rows, model.predict(*rows) + noise)
    margin = calibrate(model, held_out, delta=0.1).margin
    torch.testing.assert_close(margin / margin[0], torch.tensor([1.0, 2.0, 4.0]))
