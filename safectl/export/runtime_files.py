"""The C files beside the generated ones: those that a program calls, and what they include."""

import re
from importlib.resources import files

from safectl.export.kinds import KINDS
from safectl.export.program import Program

_INCLUDE = re.compile(r'^#include "(sf_\w+\.h)"', re.MULTILINE)


def runtime_headers(program: Program) -> tuple[str, ...]:
    """Return the headers whose functions the step of a program calls, `sf_core.h` first."""
    needed = {stem for op in program.ops for stem in KINDS[op.kind].runtime}
    return ("sf_core.h", *(f"{stem}.h" for stem in sorted(needed)))


def runtime_texts(program: Program) -> dict[str, str]:
    """Return the text of every runtime file that a program needs, by name."""
    texts: dict[str, str] = {}
    waiting = ["sf_watchdog.h", *runtime_headers(program)]  # every controller has a watched step
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        for file in (name, name.replace(".h", ".c")):
            path = files("safectl.export") / "runtime" / file
            if path.is_file():
                texts[file] = path.read_text(encoding="utf-8")
                waiting += _INCLUDE.findall(texts[file])
    return dict(sorted(texts.items()))
