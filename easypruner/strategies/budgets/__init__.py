"""Budgets: they decide how much may stay, and remove the units with the lowest scores first."""
