"""Reports: tables and pictures of finished runs, and comparisons of runs."""
