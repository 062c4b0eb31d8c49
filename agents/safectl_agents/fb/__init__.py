"""Forward-backward models: data, training and evaluation."""

VISITS = "visits.safetensors"
"""File in the folder of a run: a task, an unsafe set, and how often it was visited."""

__all__ = ["VISITS"]
