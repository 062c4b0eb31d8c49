"""`safectl evaluate fb`: score a forward-backward model on every task of its domain."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from safectl.errors import ConfigError
from safectl_agents.commands.train_fb import format_report, scores_of
from safectl_agents.fb.report import report


@dataclass(frozen=True, slots=True)
class EvaluateFBSettings:
    """Which run."""

    folder: Path = Path()
    """Folder of a run of `safectl train fb`."""
    json: bool = False
    """Print JSON."""


DEFAULTS = EvaluateFBSettings()


def run(settings: EvaluateFBSettings) -> int:
    """Print the scores of the last and of the best evaluation beside reference levels."""
    if settings.folder == Path():
        raise ConfigError("folder", "name the folder of a run of: safectl train fb")
    found = report(settings.folder)
    if settings.json:
        sys.stdout.write(json.dumps(scores_of(found), indent=2) + "\n")
    else:
        sys.stdout.write(format_report(found) + "\n")
    return 0
