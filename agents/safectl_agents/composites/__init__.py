"""Learned forward kinematics of soft composites: data, training, tracking."""
