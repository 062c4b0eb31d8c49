"""A comparison of methods as files: a table beside published figures, a picture and a film."""

from collections.abc import Mapping
from pathlib import Path

from safectl.files import new_file, write_json
from safectl_agents.diffusion.compare import Compared
from safectl_agents.diffusion.pictures import Scene, Stage, plot_stages, save_denoising

PICTURED = 5
"""Denoising steps in the picture."""
PUBLISHED = {
    "Diffuser": [-0.825, -0.784, 1.572, 3.70, 0.0],
    "SafeDiffuser ReS": [0.010, 0.010, 1.442, 4.72, 0.72],
    "SafeDiffuser TVS": [-0.003, -0.003, 1.506, 4.78, 0.69],
    "SafeFlowMatcher": [0.010, 0.010, 1.632, 4.71, 0.0],
}
SOURCE = "SafeFlowMatcher (ICLR 2026), table 1: large maze, 256 steps, one GPU, batch 1"
_PUBLISHED_COLUMNS = ["S-SPEC", "C-SPEC", "score", "ms/step", "trap rate"]
REFERENCE = {"source": SOURCE, "columns": _PUBLISHED_COLUMNS, **PUBLISHED}
"""Published figures of another maze and another machine, as they stand beside ours."""
COLUMNS = {
    "s_spec": "S-SPEC",
    "c_spec": "C-SPEC",
    "segment_margin": "way",
    "plans_safe": "safe",
    "score": "score",
    "trap_rate": "trap",
    "trap_2_rate": "trap 2",
    "curvature": "1/m",
    "acceleration": "m/s2",
    "corrected_share": "moved",
    "clipped_share": "outside",
    "ms_per_step_of_the_batch": "ms/step",
}
"""Figures of `Compared.row` that the table shows."""

LEGEND = (
    "Smallest margins at the states (S-SPEC, C-SPEC) and on the whole way, in the unit of the "
    "barrier; shares of plans that are safe on the whole way and that jump once or twice; mean "
    "curvature and acceleration; shares of states that the last step moved and that lie outside of "
    "the data; time of one step of all plans."
)

Rows = Mapping[str, Mapping[str, float]]


def draw(found: Mapping[str, Compared], scene: Scene, out: Path, *, plans: int) -> None:
    """Write `plans.png`, some denoising steps of each method, and `denoising.gif`.

    Args:
        found: Methods.
        scene: What plans are drawn over.
        out: Folder.
        plans: Largest number of plans that are drawn.

    Raises:
        StorageError: If a file cannot be written.
    """
    moving = {name: _first(compared.stages, plans) for name, compared in found.items()}
    plot_stages({name: _some(stages) for name, stages in moving.items()}, scene, out / "plans.png")
    save_denoising(moving, scene, out / "denoising.gif")


def write_tables(rows: Rows, out: Path, *, heading: str) -> Path:
    """Write `plans.json` and `plans.md`, the figures beside the reference; return the latter.

    Raises:
        StorageError: If a file cannot be written.
    """
    write_json(out / "plans.json", {name: dict(row) for name, row in rows.items()})
    path = out / "plans.md"
    with new_file(path) as draft:
        draft.write_text(f"{heading} {LEGEND}\n\n{_ours(rows)}\n{_theirs()}", encoding="utf-8")
    return path


def _ours(rows: Rows) -> str:
    lines = [[name, *(f"{row[column]:.3f}" for column in COLUMNS)] for name, row in rows.items()]
    return _table(["method", *COLUMNS.values()], lines)


def _theirs() -> str:
    lines = [[name, *(f"{each:.3f}" for each in figures)] for name, figures in PUBLISHED.items()]
    return f"Published: {SOURCE}.\n\n{_table(['method', *_PUBLISHED_COLUMNS], lines)}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _first(stages: list[Stage], plans: int) -> list[Stage]:
    return [Stage(stage.title, stage.states[:plans]) for stage in stages]


def _some(stages: list[Stage]) -> list[Stage]:
    """Return a few stages, the first and the last among them, closer together at the end."""
    last, count = len(stages) - 1, PICTURED - 1
    places = {round(last * (1.0 - (1.0 - i / count) ** 2)) for i in range(PICTURED)}
    return [stages[place] for place in sorted(places)]
