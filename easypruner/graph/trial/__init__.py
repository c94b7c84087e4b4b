"""Trials: the cut is tried before it is offered; what fails is repaired, tied or frozen."""
