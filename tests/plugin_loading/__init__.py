"""Tests of easypruner/plugins/; tests/plugins/ has those of the folder plugins/ itself."""
