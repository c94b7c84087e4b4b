"""Stages: the steps of a run, and the state that passes from one to the next."""
