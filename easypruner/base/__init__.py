"""What everything builds on, and what knows nothing of pruning."""
