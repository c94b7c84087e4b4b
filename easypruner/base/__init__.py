"""Helpers that know nothing about pruning. Every other package may use them."""
