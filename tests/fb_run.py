"""The folder of a forward-backward run for the point-mass maze, as small as it can be."""

import torch
from safetensors.torch import save_file

from safectl.barriers import Discs
from safectl.config import to_mapping
from safectl.files import write_json
from safectl.models import ForwardBackward, Learner, VisitScope, VisitTable
from safectl.spec import Signal, Spec
from safectl_agents.fb.saved import last_checkpoint, save_visits
from safectl_agents.fb.settings import FBConfig

SMALL = FBConfig(nz=8, hidden=16, embedding=8, backward_hidden=16)
SEEN = tuple(Signal(name, "m", -1.0, 1.0) for name in ("x", "y", "vx", "vy"))
PUSH = tuple(Signal(name, "1", -1.0, 1.0) for name in ("ax", "ay"))
SPEC = Spec(SEEN, PUSH, 0.02)
TABLE = VisitTable(torch.tensor([0.5]), torch.tensor([0.0, 0.9]), torch.tensor([0.05, 0.95]), 0.5)
SCOPE = VisitScope(
    torch.full((4,), -1.0), torch.full((4,), 1.0), Discs(torch.tensor([[-0.9, -0.9]]), 0.05), 7
)
"""A box that holds the limits of the robot, a disc in its corner, and seven steps."""


def write_run(folder, config=SMALL, spec=SPEC):
    """Write a run as a training leaves it, and return its model."""
    model = ForwardBackward(config.sizes(spec.nx, spec.nu), seed=0)
    checkpoint = folder / "checkpoints" / "step-0000000001"
    checkpoint.mkdir(parents=True)
    save_file(Learner(model, config.update).state(), checkpoint / "state.safetensors")
    write_json(checkpoint / "state.json", {"step": 1})
    write_json(folder / "config.json", {"version": 1, "data": "", **to_mapping(config)})
    return model


def keep_visits(folder, task, unsafe, table=TABLE, *, facts=None):
    """Keep visits of the last checkpoint in the folder of a run."""
    checkpoint = last_checkpoint(folder)
    save_visits(folder, task, unsafe, table, SCOPE, checkpoint=checkpoint, facts=facts)
