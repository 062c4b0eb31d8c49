import numpy as np
import pytest
import torch

from safectl.dynamics import MassSpringDamperParameters
from safectl.errors import ConfigError, FileFormatError, NonFiniteError, RangeError, ShapeError
from safectl.files import read_json
from safectl.planners import forward_model
from safectl.record import Recorder
from safectl.safeguards import Clip
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl.types import Reading, Sent
from safectl_agents.composites import paths
from safectl_agents.composites.log import Log, load_log, log_of_record, make_windows
from safectl_agents.composites.pictures import (
    PathPicture,
    plot_paths,
    plot_prediction,
    plot_responses,
)
from safectl_agents.composites.pid import track_with_pid
from safectl_agents.composites.rigs import (
    SPRING_PERIOD,
    exact_spring_model,
    random_inputs,
    spring_controller,
    spring_plant,
)
from safectl_agents.composites.tracking import Run, step_response, track
from safectl_agents.composites.training import (
    TrainingOptions,
    time_folds,
    train_forward_model,
)

DOUBLE = torch.float64


def make_log(samples: int = 60) -> Log:
    count = torch.arange(samples, dtype=DOUBLE)[:, None]
    return Log(count, torch.cat([count + 0.25, -count], 1), count + 0.5)


def test_a_window_holds_newest_inputs_first_and_what_was_known_before_the_output():
    windows = make_windows(make_log(), input_lags=3, output_lags=2)
    assert windows.inputs[0].tolist() == [2.0, 1.0, 0.0, 1.25, -1.0, 0.25, -0.0, 1.5]
    assert windows.outputs[0].tolist() == [2.25, -2.0]
    assert len(windows.inputs) == len(windows.outputs) == 58


def test_a_log_that_does_not_fit_is_refused(tmp_path):
    one = torch.zeros(3, 1, dtype=DOUBLE)
    with pytest.raises(ShapeError, match="outputs"):
        Log(one, one[:2], one)
    with pytest.raises(NonFiniteError, match="sensors"):
        Log(one, one, one / 0.0)
    with pytest.raises(RangeError, match="samples"):
        make_windows(Log(one, one, one), input_lags=2, output_lags=3)
    (tmp_path / "log.npz").write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match="no log"):
        load_log(tmp_path / "log.npz")


def test_a_log_survives_its_file(tmp_path):
    log, path = make_log(), tmp_path / "log.npz"
    np.savez(path, inputs=log.inputs, outputs=log.outputs, sensors=log.sensors)
    found = load_log(path)
    assert torch.equal(found.outputs, log.outputs)
    np.savez(path, inputs=log.inputs, outputs=log.outputs)
    assert load_log(path).sensors.shape == (60, 0)


def test_a_step_record_becomes_a_log_whose_input_led_to_its_output(tmp_path):
    signal = [Signal(name, "1", -9.0, 9.0) for name in ("angle", "light", "push")]
    spec, path = Spec(tuple(signal[:2]), (signal[2],), 0.1), tmp_path / "record.mcap"
    clip = Clip(spec)
    with Recorder(path, spec) as recorder:
        for n in range(4):
            observed, proposal = torch.tensor([float(n), -float(n)]), torch.full((1, 1), 0.1 * n)
            decision = clip.filter(observed[None], proposal)
            sent = Sent(decision.action[0], float(n))
            recorder.append(Reading(observed, float(n)), proposal, decision, sent, 0.0)
    log = log_of_record(path, outputs=["angle"], sensors=["light"])
    assert log.outputs[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert log.sensors[:, 0].tolist() == [-1.0, -2.0, -3.0]
    torch.testing.assert_close(log.inputs[:, 0].float(), torch.tensor([0.0, 0.1, 0.2]))
    with pytest.raises(RangeError, match="height"):
        log_of_record(path, outputs=["height"])


def test_every_fold_validates_on_what_comes_after_its_training():
    folds = time_folds(100, 4)
    assert len(folds) == 4
    assert all(train.stop == check.start for train, check in folds)
    assert folds[-1][1].stop == 100
    with pytest.raises(RangeError, match="folds"):
        time_folds(3, 3)


def windows_of(function, rows: int = 400):
    generator = torch_generator(0, "smooth function")
    x = torch.rand(rows, 3, generator=generator, dtype=DOUBLE) - 0.5
    log = Log(x[:, :1], function(x), x[:, 1:])
    return make_windows(log, input_lags=1, output_lags=1)._replace(
        inputs=x[1:], outputs=log.outputs[1:]
    )


def test_a_forward_model_learns_a_smooth_function():
    windows = windows_of(lambda x: 0.5 * torch.tanh(x.sum(1, keepdim=True)))
    options = TrainingOptions(hidden=(8,), activation="tanh", epochs=40, batch=50)
    trained = train_forward_model([windows], options)
    assert trained.error < 0.02


def stop_after_two(epoch: int, error: float) -> None:
    if epoch == 2:
        raise KeyboardInterrupt


def test_a_training_that_was_stopped_goes_on_to_the_same_network(tmp_path):
    windows = windows_of(lambda x: x[:, :1])
    whole = TrainingOptions(hidden=(4,), gated=3, epochs=4)
    straight = train_forward_model([windows], whole)

    folder = tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        train_forward_model([windows], whole, folder=folder, after_epoch=stop_after_two)
    assert read_json(folder / "epoch.json", advice="")["epoch"] == 2
    first = train_forward_model([windows], whole, folder=folder)
    again = train_forward_model([windows], whole, folder=folder)  # nothing is left to do
    for a, b, c in zip(
        straight.network.parameters(),
        first.network.parameters(),
        again.network.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)
        assert torch.equal(b, c)
    with pytest.raises(ConfigError, match="other options"):
        train_forward_model([windows], TrainingOptions(hidden=(5,), epochs=4), folder=folder)


def test_options_out_of_range_are_refused():
    with pytest.raises(RangeError, match="epochs"):
        TrainingOptions(epochs=0)
    with pytest.raises(RangeError, match="activations"):
        TrainingOptions(activation="swish")
    with pytest.raises(RangeError, match="held_out"):
        train_forward_model([windows_of(lambda x: x[:, :1])], TrainingOptions(), held_out=1.0)


@pytest.mark.parametrize("name", paths.PATHS)
def test_paths_have_three_finite_coordinates_within_three_centimetres(name):
    path = paths.PATHS[name](2000)
    assert path.shape == (2000, 3)
    assert np.isfinite(path).all()
    assert np.abs(path).max() <= 0.03


def test_the_figure_eight_has_its_published_size():
    path = paths.figure_eight(2000)
    assert np.ptp(path[:, 2]) == pytest.approx(0.040, abs=1e-4)
    assert np.ptp(path[:, 1]) == pytest.approx(0.025, abs=1e-4)


def test_random_inputs_stay_within_their_limits_and_use_them():
    drawn = random_inputs(-1.75, 0.83, (500, 4, 2), seed=0)
    assert drawn.min() >= -1.75
    assert drawn.max() <= 0.83
    assert drawn.max() - drawn.min() > 2.0


def test_a_step_response_is_judged_per_step():
    target = np.array([[1.0]] * 4 + [[3.0]] * 4)
    output = np.array([[0.0], [1.0], [1.1], [1.0], [1.0], [3.0], [3.0], [2.5]])
    found = step_response(Run(target, output, np.zeros((8, 1))), 0.1)
    assert found.overshoot == pytest.approx(0.1)
    assert found.steady == pytest.approx(0.5)
    assert found.itae == pytest.approx(0.1 * (0.2 * 0.1 + 0.3 * 0.5))


def staircase() -> np.ndarray:
    return np.repeat([0.2, 0.4, 0.8], (333, 333, 334))[:, None]


def test_the_tuned_pid_shows_its_known_figures():
    plant = spring_plant(MassSpringDamperParameters())
    found = step_response(track_with_pid(plant, staircase(), period=SPRING_PERIOD), SPRING_PERIOD)
    assert found.itae == pytest.approx(0.0356, abs=5e-5)
    assert found.overshoot == pytest.approx(0.059, abs=1e-3)


@pytest.mark.slow
def test_predictive_control_with_the_exact_model_shows_its_known_figures():
    controller = spring_controller(exact_spring_model(), sharpness=1e-6)
    plant = spring_plant(MassSpringDamperParameters())
    run = track(controller, plant, staircase(), period=SPRING_PERIOD)
    found = step_response(run, SPRING_PERIOD)
    assert found.itae == pytest.approx(0.0291, abs=5e-5)
    assert found.rmse == pytest.approx(0.0486, abs=5e-5)
    assert found.overshoot == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
def test_the_integrated_innovation_removes_the_error_of_a_constant_push():
    plant = spring_plant(MassSpringDamperParameters(), push=-0.1)
    errors = {}
    for gain in (0.0, 0.2):
        controller = spring_controller(exact_spring_model(), disturbance_gain=gain)
        run = track(controller, plant, staircase(), period=SPRING_PERIOD)
        errors[gain] = step_response(run, SPRING_PERIOD).steady
    assert errors[0.0] > 4e-3
    assert errors[0.2] < 1e-5


def test_pictures_are_written_whole(tmp_path):
    target = np.repeat([0.2, 0.4], 20)[:, None]
    run = Run(target, 0.9 * target, np.zeros((40, 1)))
    plot_responses({"ours": run}, SPRING_PERIOD, tmp_path / "responses.png")
    path = np.tile(target, (1, 3))
    followed = PathPicture(Run(path, 0.9 * path, np.zeros((40, 2))), 0.1)
    plot_paths({"eight": followed, "circle": followed}, tmp_path / "paths.png")
    windows = windows_of(lambda x: x[:, :1], rows=30)
    model = forward_model(torch.nn.Sequential(torch.nn.Linear(3, 1)))
    plot_prediction(model, windows, tmp_path / "prediction.png")
    for name in ("responses", "paths", "prediction"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
