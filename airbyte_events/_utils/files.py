"""Files that only their owner can read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Replace a file durably and atomically; only its owner can read it. Missing folders are created likewise.

    :raises OSError: if it can't be written; the old file is unchanged.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # readable by its owner alone
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
