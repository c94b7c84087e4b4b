"""Everything that touches an MMEngine Runner."""
