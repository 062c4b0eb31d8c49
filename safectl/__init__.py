"""One safety specification in simulation, on the robot and on the microcontroller."""
