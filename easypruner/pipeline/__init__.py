"""Runs: the stages of a config in order, their files, and resuming."""
