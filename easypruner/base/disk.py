"""Problems of the disk in words: full, read-only, without permission, vanished."""

from __future__ import annotations

import errno

_REASONS = {
    'the disk is full; free some space': 'ENOSPC',
    'the quota of the disk is used up; free some space': 'EDQUOT',
    'the file system is read-only; make it writable, or use another folder': 'EROFS',
    'permission is denied; change the permissions, or use another folder': 'EACCES EPERM',
    'the file or its folder does not exist, or has vanished; restore it': 'ENOENT',
    'a part of the path is a file, not a folder; use another path': 'ENOTDIR EEXIST',
    'the path is a folder, not a file; use another path': 'EISDIR',
    'the file is too large for the file system, or for the limit of ulimit -f': 'EFBIG',
    'the path is too long; use a shorter one': 'ENAMETOOLONG',
    'too many files are open; raise ulimit -n, or use fewer num_workers': 'EMFILE ENFILE',
    'the disk or the network file system has failed; check it': (
        'EIO ENXIO ENODEV ESTALE ETIMEDOUT ENOTCONN EHOSTDOWN EREMOTEIO ENOLCK'
    ),
}
# Not every system has every number.
_BY_NUMBER = {
    getattr(errno, name): reason
    for reason, names in _REASONS.items()
    for name in names.split()
    if hasattr(errno, name)
}


def disk_problem(error: OSError) -> str | None:
    """Return what is wrong with a file or a disk and what to do; None for any other problem.

    >>> disk_problem(PermissionError(13, 'Permission denied', 'run/state.json'))
    "'run/state.json': permission is denied; change the permissions, or use another folder"
    """
    reason = _BY_NUMBER.get(error.errno or 0)
    if reason is None:
        return None
    return reason if error.filename is None else f'{str(error.filename)!r}: {reason}'
