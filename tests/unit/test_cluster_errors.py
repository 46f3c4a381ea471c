"""What Dask raises for a lost cluster, as one line."""

from __future__ import annotations

import types

import pytest
from distributed import KilledWorker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from aetdist._console import describe
from aetdist.blocks.lost import cluster_errors
from aetdist.errors import CapacityError, ClusterError

WORKER = types.SimpleNamespace(address="tcp://10.0.0.3:4001")
LOST = KilledWorker("window-3", WORKER, 3)
GONE = FutureCancelledError("window-3", "scheduler-connection-lost", "Client lost the connection.\nPlease check.")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            LOST,
            CapacityError,
            r"lost with its worker 4 times, the last time with tcp://10\.0\.0\.3:4001.*--memory-limit",
        ),
        (GONE, ClusterError, r"connection to the Dask scheduler is lost \(window-3 cancelled .*start it again"),
        (CommClosedError("in <TCP>"), ClusterError, r"is lost \(in <TCP>\)"),
        (OSError("Timed out trying to connect to tcp://a:1"), ClusterError, r"is lost \(Timed out .*tcp://a:1\)"),
    ],
)
def test_cluster_errors__one_line_and_the_run_goes_on(error: Exception, kind: type[Exception], words: str) -> None:
    with (
        pytest.raises(kind, match=rf"{words}.*Run the same again: what was finished is kept") as caught,
        cluster_errors(),
    ):
        raise error
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error
    assert describe(error) == (str(caught.value), 2)


def test_cluster_errors__others_pass() -> None:
    with pytest.raises(ZeroDivisionError), cluster_errors():
        raise ZeroDivisionError
    assert describe(ZeroDivisionError("a"))[0] == "unexpected ZeroDivisionError: a (--debug shows where)"
