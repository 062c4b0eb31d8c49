"""C99 text for a program: caller-owned state, constant tables, no heap, equal bytes every time.

The output folder holds the generated files and the runtime files they use, so it compiles alone.
"""

import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from safectl.errors import RangeError, ShapeError
from safectl.export.emit_ops import ARENAS, C_TYPES, Emitted, emit_ops
from safectl.export.estimate import estimate_instructions, number_formats
from safectl.export.golden import example_observations
from safectl.export.interpret import replay
from safectl.export.layouts import Layout, arrange
from safectl.export.literals import float_literal, float_rows
from safectl.export.program import ACTION, FAIL_SAFE, MARGIN, STATUS, Array, Program
from safectl.export.runtime_files import runtime_headers, runtime_texts
from safectl.files import new_folder
from safectl.spec import Signal

C_FLAGS = (
    *("-std=c99", "-pedantic", "-ffp-contract=off", "-Werror", "-Wall", "-Wextra"),
    *("-Wconversion", "-Wdouble-promotion", "-Wshadow", "-Wvla"),
)
"""How generated code is compiled everywhere, besides optimisation and target."""

_GOLDEN_ROWS = 8
_STATUS_NAMES = ("SF_KEPT", "SF_CORRECTED", "SF_FALLBACK")


def emit_c(
    program: Program,
    folder: Path,
    *,
    observations: Array | None = None,
    layout: Layout = "plain",
    replace: bool = False,
) -> None:
    """Write a program as C with its runtime, self-test and README.

    Args:
        program: The program.
        folder: Folder to make.
        observations: Inputs of the self-test, shape (rows, nx), finite; drawn by
            `example_observations` when absent. A row of NaN is added.
        layout: "plain" for one flat folder, or the project of a build system: an Arduino library,
            a Zephyr application, a PlatformIO project.
        replace: Whether an existing folder is exchanged for the new one.

    Raises:
        StorageError: If the folder exists (without `replace`) or cannot be written.
        RangeError: If the program has the name of a runtime file.
        ShapeError: If the observations do not fit the specification.
    """
    texts = arrange(c_texts(program, observations), program, layout)
    with new_folder(folder, replace=replace) as draft:
        for file, text in texts.items():
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            (draft / file).write_text(text, encoding="utf-8", newline="\n")


def c_texts(program: Program, observations: Array | None = None) -> dict[str, str]:
    """Return the text of every file of the plain layout, by name.

    Raises:
        RangeError: If the program has the name of a runtime file.
        ShapeError: If the observations do not fit the specification.
    """
    if (files("safectl.export") / "runtime" / f"sf_{program.name}.h").is_file():
        raise RangeError("program name", value=program.name, expected="not that of a runtime file")
    if observations is None:
        observations = example_observations(program, _GOLDEN_ROWS)
    if observations.ndim != 2 or observations.shape[1] != program.spec.nx:
        raise ShapeError("observations", expected=("rows", program.spec.nx), got=observations.shape)
    emitted = emit_ops(program)
    facts = _facts(program, emitted)
    name = f"sf_{program.name}"
    return {
        f"{name}.h": _fill("program.h.in", facts),
        f"{name}.c": _fill("program.c.in", facts | _body(program, emitted)),
        f"{name}_test.c": _fill("program_test.c.in", facts | _vectors(program, observations)),
        "README.md": _fill("README.md.in", facts),
        **runtime_texts(program),
    }


def sources(program: Program) -> tuple[str, ...]:
    """Names of the `.c` files that make up the controller, without the self-test."""
    runtime = (name for name in runtime_texts(program) if name.endswith(".c"))
    return (f"sf_{program.name}.c", *runtime)


def fill_template(template: str, program: Program) -> str:
    """Fill one of our harness templates, which need only the name of the program."""
    return _fill(template, {"name": program.name, "NAME": program.name.upper()})


def _fill(template: str, facts: dict[str, str]) -> str:
    text = (files("safectl.export") / "templates" / template).read_text(encoding="utf-8")
    return Template(text).substitute(facts)


def _facts(program: Program, emitted: Emitted) -> dict[str, str]:
    spec = program.spec
    return {
        "name": program.name,
        "NAME": program.name.upper(),
        "nx": str(spec.nx),
        "nu": str(spec.nu),
        "period": f"{spec.period:.9g}",
        "period_literal": float_literal(np.float32(spec.period)),
        "spec_digest": f"{spec.digest():08x}",
        "program_digest": f"{program.digest():08x}",
        "crc": f"{zlib.crc32(emitted.blob):08x}",
        "arenas": _arena_fields(emitted),
        "observation_table": _comment_rows(spec.observation),
        "action_table": _comment_rows(spec.action),
        "observation_rows": _markdown_rows(spec.observation),
        "action_rows": _markdown_rows(spec.action),
        "weight_bytes": str(len(emitted.blob)),
        "state_bytes": str(emitted.state_bytes),
        "multiply_adds": str(program.multiply_adds()),
        "instructions": f"{estimate_instructions(program):,}",
        "formats": number_formats(program),
        "fail_safe": str([float(value) for value in program.constants[FAIL_SAFE]]),
        "flags": " ".join(C_FLAGS),
    }


def _arena_fields(emitted: Emitted) -> str:
    """Members of the state struct: what survives a step first."""
    states = emitted.plan.states
    fields = [f"    float states[{states}]; /* what one step leaves to the next */"] * bool(states)
    sizes = emitted.plan.arenas
    fields += [f"    {C_TYPES[name]} {_arena(name)}[{sizes[name]}];" for name in sizes]
    return "\n".join(fields)


def _arena(dtype: str) -> str:
    return "arena" + ARENAS[dtype][1:]


def _body(program: Program, emitted: Emitted) -> dict[str, str]:
    has_margin = MARGIN in emitted.places
    kept = "SF_KEPT" if program.is_network else "is_kept ? SF_KEPT : SF_CORRECTED"
    arenas = [
        f"    {C_TYPES[name]} *const {ARENAS[name]} = state->{_arena(name)};"
        for name in emitted.plan.arenas
    ]
    starts = [("sf_copy", name, state.initial) for name, state in program.states.items()]
    sizes = program.sizes
    following = [(emitted.places[s.following], sizes[s.following]) for s in program.states.values()]
    return {
        "includes": "\n".join(f'#include "{name}"' for name in runtime_headers(program)),
        "fields": "\n".join(emitted.fields),
        "values": "\n".join(emitted.values),
        "steps": "\n".join(f"    {line}" for line in emitted.steps),
        "arena_pointers": "\n".join(arenas),
        "reset": "\n".join(
            f"    {copy}({emitted.places[name]}, tables.c_{initial}, {sizes[name]});"
            for copy, name, initial in starts
        )
        or "    (void)state;",
        "finite_states": "".join(
            f" ||\n        !sf_all_finite({place}, {size})" for place, size in following
        ),
        "keep_states": "\n".join(
            f"    sf_copy({emitted.places[name]}, {place}, {size});"
            for name, (place, size) in zip(program.states, following, strict=True)
        ),
        "action": emitted.places[ACTION],
        "margin": emitted.places[MARGIN][1:] if has_margin else "SF_MARGIN_NONE",
        "status": f"(sf_status)(int){emitted.places[STATUS][1:]}" if has_margin else kept,
    }


def _vectors(program: Program, observations: Array) -> dict[str, str]:
    nan_row = np.full((1, program.spec.nx), np.nan, np.float32)
    rows = np.concatenate([observations.astype(np.float32), nan_row])
    expected = replay(program, rows)
    words = [", ".join(f"0x{word:08x}u" for word in row) for row in rows.view(np.uint32)]
    return {
        "rows": str(len(rows)),
        "observations": "\n".join(f"    {{{row}}}," for row in words),
        "actions": "\n".join(f"    {{{row}}}," for row in float_rows(expected.action)),
        "margins": float_rows(expected.margin[None])[0],
        "statuses": ", ".join(_STATUS_NAMES[status] for status in expected.status),
    }


def _comment_rows(signals: Sequence[Signal]) -> str:
    rows = []
    for s in signals:
        text = f" * {s.name!a:32} {s.unit!a:12} {s.low:<12.6g} {s.high:.6g}"
        rows.append(text.replace("*/", "* /").replace("/*", "/ *"))
    return "\n".join(rows)


def _markdown_rows(signals: Sequence[Signal]) -> str:
    rows = [f"{s.name!a} | {s.unit!a} | {s.low:.6g} | {s.high:.6g}" for s in signals]
    return "\n".join(f"| {row} |" for row in rows)
