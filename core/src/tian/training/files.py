"""Writing in a run directory when the disk may be full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tian.errors import RunError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the device, the user's quota, the process's limit


@contextmanager
def full_disk(folder: Path, what: str) -> Iterator[None]:
    """Turn an error of the file system into a RunError that names the folder and its free space.

    Args:
        folder: where it is written.
        what: what was to be written, for the message.
    """
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free / 1e6
        raise RunError(
            f"{what} cannot be written: {error.strerror or error} ({free:.1f} MB free)",
            where=str(folder),
            hint="free some space and resume; the checkpoints written before are intact"
            if error.errno in FULL
            else "make the folder writable and resume; the checkpoints written before are intact",
        ) from None
