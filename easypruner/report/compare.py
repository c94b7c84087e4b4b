"""Finished runs side by side: a table, a picture and comparison.json."""

from __future__ import annotations

import argparse


def compare_command(args: argparse.Namespace) -> None:
    """Run ``tools/compare.py``.

    Args:
        args: ``work_dirs`` (paths of finished runs), ``out`` (folder to write, None for
            ``comparison``), and optionally ``overwrite`` and ``manager``.
    """
    raise NotImplementedError
