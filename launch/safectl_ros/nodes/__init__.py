"""The nodes, each thin: logic without ROS is elsewhere."""

from safectl.errors import MissingExtra

try:
    import rclpy  # noqa: F401  asked for before the modules that need it
except ModuleNotFoundError as error:
    raise MissingExtra("rclpy", "ros") from error
