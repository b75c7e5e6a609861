"""Errors of disks: which of them may pass, and trying again."""

import errno
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

# Of network file systems and overloaded servers. A full disk, or one without permission, stays so.
PASSING = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR),
        *(errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ENOTCONN, errno.EREMOTEIO),
    }
)
_T = TypeVar("_T")
WAITS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt


def patiently(work: Callable[[], _T], waits: Sequence[float] = WAITS) -> _T:
    """work(), again after each wait where the disk's error may pass; then its error."""
    for wait in waits:
        try:
            return work()
        except Exception as error:
            cause = error_behind(error)
            if cause is None or cause.errno not in PASSING:
                raise
        time.sleep(wait)
    return work()


def error_behind(error: BaseException) -> OSError | None:
    """Returns the operating system's error behind `error`, if there is one.

    TensorStore hides its number in the text of a ValueError.
    """
    if isinstance(error, OSError):
        return error
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else None
