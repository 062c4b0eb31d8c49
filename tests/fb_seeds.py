"""What a finished seed of `safectl bench fb` leaves behind."""

import csv

from safectl.files import write_json
from safectl_agents.fb.domains import facts_of

TASKS = tuple(facts_of("point_mass_maze").tasks)


def write_seed(folder, method, seed, scores, *, domain="point_mass_maze", config=None, facts=None):
    """Write one, with equal scores of all tasks by update; `config` and `facts` come on top."""
    tasks = tuple(facts_of(domain).tasks)
    place = folder / domain / method / f"seed-{seed}"
    place.mkdir(parents=True)
    with (place / "evaluations.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", *tasks])
        rows.writerows([step, *[score] * 4] for step, score in scores.items())
    last = {"step": max(scores), "scores": dict.fromkeys(tasks, scores[max(scores)])}
    usual = {
        "config": {"seed": seed, **(config or {})},
        "machine": "a machine",
        "command": "a command",
        "episodes_of_the_data": 1,
        "processor_seconds_of_the_last_start": 1.0,
    }
    write_json(place / "result.json", {"last": last, **usual, **(facts or {})})
