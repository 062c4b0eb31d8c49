"""Files of a small base and a small arm, for tests."""

from safectl_ros.bench.fuzz import ROBOT

BASE = ROBOT.replace("[20.0, 40.0]", "[5.0, 10.0]")

ARM = """
kind = "arm"
period = 0.02
observation = [
  {name = "elbow", unit = "rad", low = -2.0, high = 2.0},
  {name = "wrist", unit = "rad", low = -2.0, high = 2.0},
  {name = "elbow_velocity", unit = "rad/s", low = -3.0, high = 3.0},
  {name = "wrist_velocity", unit = "rad/s", low = -3.0, high = 3.0},
]
action = [
  {name = "elbow", unit = "rad", low = -2.0, high = 2.0},
  {name = "wrist", unit = "rad", low = -2.0, high = 2.0},
]
[stop]
command = "position"
velocities = ["elbow_velocity", "wrist_velocity"]
positions = ["elbow", "wrist"]
deceleration = [4.0, 4.0]
"""


def write(folder, name, text):
    """Write a file and return its path as text."""
    path = folder / name
    path.write_text(text)
    return str(path)
