"""Environments: simulated robots with a cost, alone and in batches."""
