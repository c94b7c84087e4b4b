"""Measures: sums over units, activations, gradients and batch norm statistics."""
