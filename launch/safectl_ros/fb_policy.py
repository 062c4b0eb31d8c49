"""The policy of a task from the folder of a forward-backward model."""

from safectl.types import Policy
from safectl_agents.fb.saved import load_task_policy
from safectl_ros.kinds import Source
from safectl_ros.policies import FBSettings


def build(settings: FBSettings, source: Source) -> Policy:
    """Build the policy.

    Raises:
        UnknownNameError, FileFormatError, RangeError, ShapeError: As `load_task_policy`.
    """
    parent = source.path.parent
    data = parent / settings.data if settings.data else None
    return load_task_policy(
        parent / settings.run, source.spec, task=settings.task, goal=settings.goal, data=data
    )
