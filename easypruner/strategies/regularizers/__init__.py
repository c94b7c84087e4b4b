"""Regularizers: they push channels towards zero during training."""
