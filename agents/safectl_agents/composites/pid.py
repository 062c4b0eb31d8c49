"""The tuned PID that predictive control is compared with on the mass-spring-damper."""

import numpy as np
import torch

from safectl_agents.composites.tracking import Plant, Rows, Run

GAINS = (7.735, 15.699, 0.927)
"""Proportional [N/m], integral [N/(m s)] and derivative [N s/m] gain: Nelder-Mead on the ITAE."""

_FILTER = 0.7  # share of the old value in the filtered derivative


def track_with_pid(plant: Plant, target: Rows, *, period: float) -> Run:
    """Run the PID: derivative on the measurement, integral stopped while the input is limited."""
    proportional, integral_gain, derivative_gain = GAINS
    state, integral, slope, before = plant.start, 0.0, 0.0, 0.0
    outputs, inputs = [], []
    for n, wanted in enumerate(target[:, 0]):
        measured = float(plant.measure(state)[0][0, 0])
        error = float(wanted) - measured
        slope = _FILTER * slope + (1.0 - _FILTER) * (measured - before) / period
        before = measured
        grown = integral + error * period
        free = proportional * error + integral_gain * grown - derivative_gain * slope
        action = min(max(free, -1.0), 1.0)
        integral = grown if action == free else integral
        state = plant.step(state, torch.tensor([[action]], dtype=torch.float64), n)
        outputs.append([measured])
        inputs.append([action])
    return Run(target, np.array(outputs), np.array(inputs))
