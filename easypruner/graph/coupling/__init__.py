"""Coupling: which channels live or die together, followed through the operations."""
