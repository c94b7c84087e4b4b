"""The built-in strategies: one file for each, and each file is a plugin like a user's."""
