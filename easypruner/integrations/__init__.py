"""Regularizers in the loops of Lightning, Accelerate and the Trainer of Hugging Face.

Each module needs its own library: ``pip install easypruner[lightning]``.
"""
