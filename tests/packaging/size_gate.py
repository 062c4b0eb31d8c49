"""Fail when a module passes 400 lines or a function 60; print the largest and the totals."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
AREAS = {
    "safectl": "safectl",
    "safectl_envs": "envs/safectl_envs",
    "safectl_agents": "agents/safectl_agents",
    "safectl_hardware": "hardware/safectl_hardware",
    "safectl_ros": "launch/safectl_ros",
}
MODULE_WARN, MODULE_LIMIT, FUNCTION_LIMIT = 250, 400, 60


def main() -> int:
    failures = []
    sizes = {}
    for package, folder in AREAS.items():
        paths = sorted((ROOT / folder).rglob("*.py"))
        lines = {path: len(path.read_text().splitlines()) for path in paths}
        sizes |= lines
        print(f"{package:18s}{sum(lines.values()):6d} lines in {len(lines)} modules")
        for path in paths:
            failures += long_functions(path)
    largest = sorted(sizes.items(), key=lambda item: -item[1])
    for path, count in largest[:10]:
        mark = "  <- split it" if count > MODULE_WARN else ""
        print(f"{count:6d}  {path.relative_to(ROOT)}{mark}")
    failures += [f"{p.relative_to(ROOT)}: {n} lines" for p, n in largest if n > MODULE_LIMIT]
    print(f"total {sum(sizes.values())} lines, {growth()} against the main branch")
    for failure in failures:
        print(f"too long: {failure}", file=sys.stderr)
    return bool(failures)


def long_functions(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LIMIT
    ]


def growth() -> str:
    answer = subprocess.run(
        ["git", "-C", str(ROOT), "diff", "--shortstat", "main", "--", "*.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "no difference"


if __name__ == "__main__":
    sys.exit(main())
