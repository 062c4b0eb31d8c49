"""Fail on trailing space, a missing final newline, merge marks, large files and stray packages."""

import sys
import tomllib
from pathlib import Path

LARGE = 200 * 1024
MAY_BE_LARGE = {".gif", ".png", ".safetensors"}
TEXT = {".py", ".md", ".toml", ".yaml", ".c", ".h", ".sh", ".txt", ".json", ".ld"}
AREAS = ("envs", "agents", "hardware", "launch", "tests")


def main(names: list[str]) -> int:
    problems = [problem for name in names for problem in check(Path(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


def check(path: Path) -> list[str]:
    if not path.is_file():
        return []
    found = []
    if path.stat().st_size > LARGE and path.suffix not in MAY_BE_LARGE:
        found.append(f"{path}: larger than {LARGE} bytes")
    if path.name == "__init__.py" and str(path.parent) in AREAS:
        found.append(f"{path}: an area holds no package of its own name")
    if path.suffix in TEXT:
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            found.append(f"{path}: no newline at the end")
        for number, line in enumerate(text.splitlines(), start=1):
            if line != line.rstrip():
                found.append(f"{path}:{number}: trailing space")
            if line.startswith(("<<<<<<< ", ">>>>>>> ")):
                found.append(f"{path}:{number}: merge mark")
    if path.suffix == ".toml":
        tomllib.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
