"""A server that speaks like S3, on this machine, and what is in its bucket."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

SECRET = "wJalrXUtnFEMI/K7MDENG+secret"


@contextmanager
def s3_server() -> Iterator[str]:
    """Its URL; it has the bucket ``lab``, and its keys are in the environment, as on every worker."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="lab")
        yield f"http://{host}:{port}"
    moto.stop()


def keys(prefix: str) -> dict[str, Any]:
    """When every object below a prefix was written."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="lab", Prefix=prefix)
    return {
        entry["Key"]: (entry["LastModified"], entry["ETag"]) for page in pages for entry in page.get("Contents", [])
    }
