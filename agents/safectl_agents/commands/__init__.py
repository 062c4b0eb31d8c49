"""The sub-commands: each module holds `DEFAULTS` and `run`."""
