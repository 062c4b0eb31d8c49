import torch

from safectl.dynamics import LinearDynamics, MassSpringDamper, MassSpringDamperParameters

PERIOD = 0.02
RUNGE_KUTTA_TOLERANCE = 1e-9
"""Eight classical steps of 2.5 ms on a plant with 0.5 Hz."""


def test_a_linear_spring_moves_as_the_exact_discrete_model():
    A = torch.tensor([[0.0, 1.0], [-10.0, -2.0]], dtype=torch.float64)
    B = torch.tensor([[0.0], [10.0]], dtype=torch.float64)
    exact, ours = LinearDynamics(A, B, PERIOD), MassSpringDamper(PERIOD)
    state = torch.tensor([[0.3, -1.0], [0.0, 0.0]], dtype=torch.float64)
    force = torch.tensor([[0.7], [-1.0]], dtype=torch.float64)
    expected, found = exact.predict(state, force).mean, ours.predict(state, force).mean
    torch.testing.assert_close(found, expected, atol=RUNGE_KUTTA_TOLERANCE, rtol=0.0)
    torch.testing.assert_close(ours.drift(state), exact.drift(state))
    torch.testing.assert_close(ours.gain(state), exact.gain(state))


def test_a_hardening_spring_rests_where_its_force_balances():
    plant = MassSpringDamper(PERIOD, MassSpringDamperParameters(hardening=0.5))
    state = torch.zeros(1, 2, dtype=torch.float64)
    for _ in range(600):
        state = plant.predict(state, torch.tensor([[0.9]], dtype=torch.float64)).mean
    position = float(state[0, 0])
    assert abs(position + 0.5 * position**3 - 0.9) < 1e-6
