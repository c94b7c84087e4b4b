"""What every test needs."""

from __future__ import annotations

import os

# As the command line does: waiting threads must not take the core from those that work.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
