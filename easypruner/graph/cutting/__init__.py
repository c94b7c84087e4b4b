"""Cutting: the surgery on tensors and layers, and the record that repeats it."""
