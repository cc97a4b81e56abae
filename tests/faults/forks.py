"""Preparation of a process that forks: its children start at once, with the libraries loaded."""

import gc
import importlib
from collections.abc import Sequence


def load(libraries: Sequence[str]) -> None:
    """Import the libraries and make a client of S3, then exempt all of it from garbage collection.

    A new process takes a tenth of a second to read the descriptions of AWS's services.
    """
    gc.disable()  # while modules load, a collection finds nothing and takes a quarter of a second
    for name in ("boto3", "botocore.httpsession", *libraries):
        importlib.import_module(name)
    import boto3

    from job.storage.aws_session import new_session

    session = boto3.session.Session(
        "no", "account", region_name="us-east-1", botocore_session=new_session()
    )
    session.client("s3")
    gc.freeze()
    gc.enable()
