"""Everything that uses an MMEngine Runner."""
