"""Budgets: how much may stay, and which units go first."""
