"""Model files of other frameworks as programs."""
