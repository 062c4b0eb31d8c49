"""The main job: one task, with and without a safeguard, from training to an emulated board."""
