"""The built-in strategies: one a file, each a plugin like anybody's."""
