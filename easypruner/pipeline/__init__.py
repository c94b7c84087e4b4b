"""Stages in order, what they leave behind, and how a run goes on where it stopped."""
