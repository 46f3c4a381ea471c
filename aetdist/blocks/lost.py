"""A cluster that is lost while work is done on it: said in one line, with what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import CapacityError, ClusterError

_RESUME = "Run the same again: what was finished is kept, and it goes on from there."


@contextlib.contextmanager
def cluster_errors() -> Iterator[None]:
    """Turn what Dask raises for lost workers, and for a lost scheduler, into one-line errors.

    Raises
    ------
    CapacityError
        If one task took several workers with it, one after the other: most likely they ran out of memory.
    ClusterError
        If the scheduler is gone.
    """
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        if kind == "KilledWorker":
            raise CapacityError(
                f"A task was lost with its worker {error.args[2] + 1} times, the last time with "
                f"{getattr(error.args[1], 'address', 'one that is gone')}: most likely it needs more memory than a "
                "worker has. Give each worker more (--memory-limit, and fewer of them with --workers), or cut the work "
                f"into smaller pieces. {_RESUME}"
            ) from error
        # By name, as Dask need not be there: FutureCancelledError, FuturesCancelledError ...
        gone = kind.endswith("CancelledError") or kind in ("CommClosedError", "ClosedClientError")
        if gone or (isinstance(error, OSError) and "trying to connect to" in str(error)):
            reason = " ".join(str(error).split()) or kind
            raise ClusterError(
                f"The connection to the Dask scheduler is lost ({reason}); look whether it still runs, and start it "
                f"again. {_RESUME}"
            ) from error
        raise
