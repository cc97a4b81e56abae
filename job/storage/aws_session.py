"""Sessions of AWS's library, which share what they read from its own files."""

import os
from functools import cache
from typing import Any


def new_session() -> Any:
    """Return a new session of botocore, which finds its credentials anew."""
    import botocore.session

    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    return session


@cache
def _descriptions() -> Any:
    """Return the loader of AWS's service descriptions, shared by all sessions.

    A session of its own reads them again, which takes a fifth of a second for each store.
    """
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))
