"""Stages: the steps of a run, and the state that each passes to the next."""
