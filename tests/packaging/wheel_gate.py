"""Build sdist and wheel; the wheel must hold our five packages whole and no other name."""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = [
    "safectl",
    "envs/safectl_envs",
    "agents/safectl_agents",
    "hardware/safectl_hardware",
    "launch/safectl_ros",
]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, capture_output=True)
        wheel = next(Path(folder).glob("*.whl"))
        found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        problem = compare(found)
        if not problem:
            problem = import_in_clean_environment(wheel, Path(folder) / "clean")
    print(problem or f"{wheel.name}: {len(found)} files, only our five packages")
    return bool(problem)


def compare(found: set[str]) -> str:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    expected = {
        path.removeprefix(str(Path(folder).parent) + "/") if "/" in folder else path
        for folder in FOLDERS
        for path in tracked
        if path.startswith(folder + "/") and (ROOT / path).exists()
    }
    missing, foreign = sorted(expected - found), sorted(found - expected)
    return f"missing: {missing}, foreign: {foreign}" if missing or foreign else ""


def import_in_clean_environment(wheel: Path, folder: Path) -> str:
    """Install the wheel beside the packages of this environment, away from the checkout."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
        check=True,
    )
    modules = ["safectl", "safectl_envs", "safectl_agents", "safectl_hardware", "safectl_ros"]
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
        f"sys.path[:0] = [{str(site)!r}]; "
        f"sys.path += {[p for p in sys.path if p.endswith('site-packages')]!r}; "
        f"import {', '.join(modules)}; print(safectl.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    inside = str(site) in answer.stdout
    return "" if answer.returncode == 0 and inside else answer.stderr or answer.stdout


if __name__ == "__main__":
    sys.exit(main())
