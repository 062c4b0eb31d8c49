"""The ROS package as `make setup` installs it: what runs is this checkout."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "launch"
NODES = ("sim", "guard", "policy", "planner", "serial_bridge", "recorder")
PROGRAMS = {f"{node}_node": f"safectl_ros.nodes.{node}" for node in NODES}
PROGRAMS["emulated_board"] = "safectl_ros.emulated_board"


def install(prefix):
    """Make a prefix with the package's programs and links to its shared files."""
    share = prefix / "share" / "safectl_ros"
    share.mkdir(parents=True)
    (share / "launch").symlink_to(PACKAGE)
    for name in ("config", "dds", "security", "package.xml"):
        (share / name).symlink_to(PACKAGE / name)
    programs = prefix / "lib" / "safectl_ros"
    programs.mkdir(parents=True)
    for name, module in PROGRAMS.items():
        code = f"import sys\nfrom {module} import main\nsys.exit(main())\n"
        (programs / name).write_text(f"#!{sys.executable}\n{code}")
        (programs / name).chmod(0o755)
    return prefix
