"""A full disk below one folder, in any Python process that has this folder in PYTHONPATH.

While the file FULL_DISK_WHEN names exists, writes to files below FULL_DISK fail as the kernel lets them fail. Real
small file systems need privileges; a limit on the size of files would hit shared memory as well.
"""

import errno
import os
from pathlib import Path

_when, _folder = Path(os.environ["FULL_DISK_WHEN"]), os.environ["FULL_DISK"]


def _refusing(write):
    def wrapped(number, *arguments):
        if _when.exists() and os.readlink(f"/proc/self/fd/{number}").startswith(_folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(number, *arguments)

    return wrapped


os.write, os.pwrite = _refusing(os.write), _refusing(os.pwrite)
