"""Mask sources: which channels stay."""
