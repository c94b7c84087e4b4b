"""Checkpoints of any origin: reading without unpickling, renaming, and loading what fits."""
