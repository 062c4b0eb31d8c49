"""Diffusion planners: data, training, planning and pictures."""
