"""Everything that uses an MMEngine Runner."""

from easypruner.engine import late_imports

# Before any module of this package imports MMEngine's optimizers.
late_imports.install()
