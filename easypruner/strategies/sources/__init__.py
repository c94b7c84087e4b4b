"""Mask sources: they choose the channels that stay."""
