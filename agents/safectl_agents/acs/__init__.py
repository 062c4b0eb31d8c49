"""Trainers with a learned lower layer that corrects actions, and the methods they compare to."""
