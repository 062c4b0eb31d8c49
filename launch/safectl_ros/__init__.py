"""ROS 2 nodes, adapters and the launch runner of safectl."""
