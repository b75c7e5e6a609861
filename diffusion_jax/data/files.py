"""Writing a file whole or not at all."""

import contextlib
import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` so that a reader sees the old file or the new one, never half of it.

    Raises:
      OSError: it can't be written (no such folder, no permission, a full disk), and says so in a
        sentence; nothing is left behind, and a file that was there before is unharmed.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a folder says so itself
        raise OSError(errno.EINVAL, f"could not write {path}: it is no file, and would be replaced")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # gone, or its folder never was one
            temporary.unlink()
