"""The nodes, each thin: logic without ROS is elsewhere."""
