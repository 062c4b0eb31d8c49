"""Files of a small base and a small arm, for tests."""

BASE = """
kind = "base"
period = 0.02
observation = [
  {name = "x", unit = "m", low = -9.0, high = 9.0},
  {name = "y", unit = "m", low = -9.0, high = 9.0},
  {name = "heading", unit = "rad", low = -4.0, high = 4.0},
  {name = "speed", unit = "m/s", low = -2.0, high = 2.0},
  {name = "turn_rate", unit = "rad/s", low = -4.0, high = 4.0},
]
action = [
  {name = "speed", unit = "m/s", low = -1.0, high = 1.0},
  {name = "turn_rate", unit = "rad/s", low = -2.0, high = 2.0},
]
[stop]
velocities = ["speed", "turn_rate"]
deceleration = [5.0, 10.0]
"""

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
