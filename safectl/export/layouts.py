"""Where the files of a program lie for each build system, and what such a project adds."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from string import Template
from typing import Literal

from safectl.errors import UnknownNameError
from safectl.export.program import Program

Layout = Literal["plain", "arduino", "zephyr", "platformio"]
_Texts = Mapping[str, str]


def arrange(texts: _Texts, program: Program, layout: str) -> dict[str, str]:
    """Return the files of a project, by path, from those of the plain layout.

    Raises:
        UnknownNameError: If there is no such layout.
    """
    if layout not in _LAYOUTS:
        raise UnknownNameError("layout", layout, known=tuple(_LAYOUTS))
    return _LAYOUTS[layout](texts, program)


def _plain(texts: _Texts, program: Program) -> dict[str, str]:
    del program
    return dict(texts)


def _arduino(texts: _Texts, program: Program) -> dict[str, str]:
    """A library with an example sketch; the Arduino builder compiles all of `src`."""
    return {
        **_moved(texts, "src"),
        "README.md": texts["README.md"],
        "library.properties": _fill("library.properties.in", program),
        f"examples/{program.name}/{program.name}.ino": _fill("sketch.ino.in", program),
    }


def _zephyr(texts: _Texts, program: Program) -> dict[str, str]:
    """An application: west build -b BOARD."""
    return {
        **_moved(texts, "controller"),
        "README.md": texts["README.md"],
        "CMakeLists.txt": _fill("zephyr_CMakeLists.txt.in", program),
        "prj.conf": _fill("prj.conf.in", program),
        "src/main.c": _fill("zephyr_main.c.in", program),
    }


def _platformio(texts: _Texts, program: Program) -> dict[str, str]:
    """A project with the controller as a private library: pio run."""
    library = f"lib/sf_{program.name}"
    return {
        **_moved(texts, f"{library}/src"),
        "README.md": texts["README.md"],
        f"{library}/library.json": _fill("library.json.in", program),
        "platformio.ini": _fill("platformio.ini.in", program),
        "src/main.cpp": _fill("sketch.ino.in", program).replace(
            '#include "sf_', '#include <Arduino.h>\n\n#include "sf_', 1
        ),
    }


def _moved(texts: _Texts, folder: str) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in texts.items() if name != "README.md"}


def _fill(template: str, program: Program) -> str:
    text = (files("safectl.export") / "templates" / template).read_text(encoding="utf-8")
    return Template(text).substitute(
        name=program.name,
        NAME=program.name.upper(),
        period_ms=max(1, round(1000.0 * program.spec.period)),
    )


_LAYOUTS: Mapping[str, Callable[[_Texts, Program], dict[str, str]]] = {
    "plain": _plain,
    "arduino": _arduino,
    "zephyr": _zephyr,
    "platformio": _platformio,
}
