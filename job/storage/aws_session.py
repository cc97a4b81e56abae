"""Sessions of AWS's library, which share what is the same in each of them."""

import os
from copy import copy
from functools import cache
from typing import Any


def new_session() -> Any:
    """Return a new session of botocore, which finds its credentials anew."""
    import botocore.session

    # A session of its own registers its handlers and reads the descriptions again, which takes
    # most of the time of making a client.
    session = botocore.session.Session(
        event_hooks=copy(_event_hooks()), include_builtin_handlers=False
    )
    session.register_component("data_loader", _descriptions())
    return session


@cache
def _event_hooks() -> Any:
    """Return the library's own handlers of its events, from which each session gets a copy."""
    import botocore.session
    from botocore.hooks import HierarchicalEmitter

    emitter = HierarchicalEmitter()
    botocore.session.Session(event_hooks=emitter)
    return emitter


@cache
def _descriptions() -> Any:
    """Return the loader of AWS's service descriptions."""
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))
