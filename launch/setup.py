"""The ROS 2 package `safectl_ros` for colcon and for pip; the other packages come from the root."""

from pathlib import Path

from setuptools import __version__, find_packages, setup

NODES = ("sim", "guard", "policy", "planner", "serial_bridge", "recorder")
# Where `colcon build --symlink-install` puts the nodes. It needs setuptools below 80, which alone
# knows this option; in setup.cfg the option would stop pip with every newer one.
DEVELOP = {"script_dir": "$base/lib/safectl_ros"} if int(__version__.split(".")[0]) < 80 else {}


def files(pattern: str) -> list[str]:
    """Return the files of this folder that match, as setuptools wants them."""
    return [str(path) for path in sorted(Path().glob(pattern))]


setup(
    name="safectl_ros",
    version="0.1.0",
    packages=find_packages(include=["safectl_ros", "safectl_ros.*"]),
    package_data={"safectl_ros": ["py.typed"]},
    install_requires=["setuptools"],  # rosdep and the root's extras install the rest
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/safectl_ros"]),
        ("share/safectl_ros", ["package.xml"]),
        ("share/safectl_ros/launch", files("*.launch.*")),
        ("share/safectl_ros/config", files("config/*")),
        ("share/safectl_ros/dds", files("dds/*")),
        ("share/safectl_ros/security/policies", files("security/policies/*")),
    ],
    entry_points={
        "console_scripts": [
            *(f"{node}_node = safectl_ros.nodes.{node}:main" for node in NODES),
            "emulated_board = safectl_ros.emulated_board:main",
        ],
    },
    options={"develop": DEVELOP},
    zip_safe=True,
)
