"""Regularizers: what pushes channels towards zero while training."""
