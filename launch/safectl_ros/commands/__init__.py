"""Sub-commands of `safectl` that need the ROS package."""
