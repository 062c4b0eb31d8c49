"""The self-tests of many programs in one image: C equals the interpreter on stored vectors.

One translation unit holds many programs, because starting a compiler costs more than compiling one.
"""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from safectl.errors import VerificationError
from safectl.export.emit_c import C_FLAGS, c_texts
from safectl.export.program import Program
from safectl.export.toolchain import find_tool, run_tool
from safectl.export.verify import SANITIZE
from safectl_hardware.board import Board
from safectl_hardware.emulator import qemu_command
from safectl_hardware.linker import link

MOST_PROGRAMS = 200
"""The exit status names the first program that failed, and has eight bits."""
_PER_UNIT = 10
_STACK_BYTES = 16_384
_TIMEOUT_S = 600.0  # a few hundred networks compile in a minute on a free core
_FILE_NAMES = ("tables", "fail_safe", "observations", "actions", "margins", "statuses", "VECTORS")
"""What every generated file calls the same, renamed where several share a unit."""


def run_selftests(programs: Sequence[Program], folder: Path, *, board: Board | None = None) -> None:
    """Compile all programs, run their self-tests and refuse the first that fails.

    Args:
        programs: At most `MOST_PROGRAMS`, with different names.
        folder: Folder to make.
        board: An emulated board; this machine, under sanitizers, when absent.

    Raises:
        MissingTool: If a compiler or emulator is not installed.
        VerificationError: If something does not build, or a program gives other bits.
    """
    if len({program.name for program in programs}) != len(programs) or not programs:
        raise VerificationError("self-tests need programs with different names, at least one")
    if len(programs) > MOST_PROGRAMS:
        raise VerificationError(f"{len(programs)} self-tests; one image holds {MOST_PROGRAMS}")
    folder.mkdir(parents=True)
    units = _write(programs, folder)
    image = folder / "selftests.elf"
    if board is None:
        compiler = [find_tool("gcc", "gcc"), *C_FLAGS, *SANITIZE]
        _run([*compiler, "-I", folder, *units, "-o", image], "compiling self-tests")
        _run_image(programs, [image], "this machine")
        return
    with as_file(files("safectl_hardware") / "ports") as ports:
        exiting = ports / "semihost" / "semihost.c"
        options = [*C_FLAGS, f"-I{folder}", f"-I{ports}"]
        link(board, [*units, exiting], [], image, options=options, stack_bytes=_STACK_BYTES)
    _run_image(programs, qemu_command(board, image, ["-serial", "none"]), board.name)


def _write(programs: Sequence[Program], folder: Path) -> list[Path]:
    """Write the generated files, the units that include them, and main; return what to compile."""
    names: set[str] = set()
    for program in programs:
        for name, text in c_texts(program).items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            names.add(name)
    generated = {f"sf_{program.name}{end}" for program in programs for end in (".c", "_test.c")}
    units = [folder / name for name in sorted(names - generated) if name.endswith(".c")]
    for start in range(0, len(programs), _PER_UNIT):
        unit = folder / f"unit_{start}.c"
        chosen = programs[start : start + _PER_UNIT]
        unit.write_text("".join(_included(program) for program in chosen), encoding="utf-8")
        units.append(unit)
    main = folder / "main.c"
    main.write_text(_main(programs), encoding="utf-8")
    return [*units, main]


def _included(program: Program) -> str:
    name = program.name
    own = [entry for entry in _FILE_NAMES if entry != "VECTORS"]
    defines = "".join(f"#define {entry} {entry}_{name}\n" for entry in own)
    undefines = "".join(f"#undef {entry}\n" for entry in _FILE_NAMES)
    return f'{defines}#include "sf_{name}.c"\n#include "sf_{name}_test.c"\n{undefines}'


def _main(programs: Sequence[Program]) -> str:
    includes = "".join(f'#include "sf_{program.name}.h"\n' for program in programs)
    members = "".join(f"    sf_{p.name}_state {p.name};\n" for p in programs)
    calls = "".join(
        f"    if (sf_{program.name}_selftest(&state.{program.name}) != 0) {{\n"
        f"        return {number};\n    }}\n"
        for number, program in enumerate(programs, start=1)
    )
    return (
        f"{includes}\nstatic union {{\n{members}}} state;\n\n"
        f"int main(void) {{\n{calls}    return 0;\n}}\n"
    )


def _run(command: Sequence[str | Path], purpose: str) -> None:
    run_tool(command, purpose=purpose, timeout_s=_TIMEOUT_S)


def _run_image(programs: Sequence[Program], command: Sequence[str | Path], where: str) -> None:
    """Run an image; its status is the number of the program that failed first."""
    try:
        _run(command, f"the self-tests on {where}")
    except VerificationError as error:
        for number, program in enumerate(programs, start=1):
            if f"failed with status {number}:" in str(error):
                raise VerificationError(
                    f"program {program.name}: C on {where} and the interpreter differ; {error}"
                ) from error
        raise
