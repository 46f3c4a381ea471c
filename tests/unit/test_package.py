from __future__ import annotations

import dask.array as da
import pytest


def test_no_compute__refuses(no_compute):
    with pytest.raises(AssertionError, match="computed"):
        da.ones(3, chunks=1).sum().compute()


def test_client__two_workers(client):
    assert len(client.scheduler_info()["workers"]) == 2
