"""Build the ROS 2 package as a colcon workspace does and compare the installed files.

Colcon needs older versions of setuptools and empy than the rest, so it has an environment of its
own under `build/`.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "launch"
ENVIRONMENT = ROOT / "build" / "colcon"
REQUIREMENTS = PACKAGE / "requirements" / "colcon.txt"


def main() -> int:
    install_colcon()
    problems = []
    for options in ([], ["--symlink-install"]):
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), options)
            share = Path(folder) / "install" / "safectl_ros" / "share"
            missing = [name for name in expected() if not found(share.parent, name)]
            problems += [f"{' '.join(options) or 'plain'}: {name} is missing" for name in missing]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"colcon builds safectl_ros; {len(expected())} files installed where ROS looks")
    return bool(problems)


def install_colcon() -> None:
    stamp = ENVIRONMENT / ".complete"
    if stamp.exists() and stamp.stat().st_mtime > REQUIREMENTS.stat().st_mtime:
        return
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "-r", str(REQUIREMENTS)]
    subprocess.run(pip, check=True)
    stamp.touch()


def build(workspace: Path, options: list[str]) -> None:
    """Build in a workspace that holds this checkout as a source, as `git clone` puts it."""
    (workspace / "src").mkdir()
    (workspace / "src" / "safectl").symlink_to(ROOT)
    colcon = [str(ENVIRONMENT / "bin" / "colcon"), "build", *options]
    answer = subprocess.run(
        [*colcon, "--base-paths", "src/safectl", "--packages-select", "safectl_ros"],
        cwd=workspace,
        env={"PATH": f"{ENVIRONMENT / 'bin'}:{os.defpath}", "HOME": str(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise SystemExit(f"colcon build failed:\n{answer.stdout}{answer.stderr}")


def expected() -> list[str]:
    """Return the files that a workspace must hold, relative to the package's install prefix."""
    share = "share/safectl_ros"
    return [
        "share/ament_index/resource_index/packages/safectl_ros",
        f"{share}/package.xml",
        *(f"{share}/launch/{path.name}" for path in sorted(PACKAGE.glob("*.launch.*"))),
        *(f"{share}/config/{path.name}" for path in sorted(PACKAGE.glob("config/*"))),
        *(f"{share}/dds/{path.name}" for path in sorted(PACKAGE.glob("dds/*"))),
        *(f"{share}/security/policies/{p.name}" for p in sorted(PACKAGE.glob("security/*/*"))),
        *(f"lib/safectl_ros/{node}_node" for node in nodes()),
    ]


def nodes() -> list[str]:
    """Return the node modules that exist, without the package's `__init__`."""
    modules = (PACKAGE / "safectl_ros" / "nodes").glob("[a-z]*.py")
    return sorted(path.stem for path in modules)


def found(prefix: Path, name: str) -> bool:
    path = prefix / name
    executable = not name.startswith("lib/") or os.access(path, os.X_OK)
    return path.is_file() and executable


if __name__ == "__main__":
    sys.exit(main())
