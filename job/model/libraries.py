"""Import the libraries that hold and run models, in less time than they take by themselves."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OF_MODELS = "transformers.modeling_utils"  # before it is imported, a process has no model
DISABLE_COMPILER = "TORCHDYNAMO_DISABLE"  # a variable of torch, which reads it at each decoration


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector out of what is imported within the block, then and for ever.

    There is no garbage in modules, but looking for it takes 0.8 of 5 CPU seconds, and 0.4 at each
    later collection of everything. Does nothing once the process may have models: those that are
    garbage must be found. At its end everything is collected as ever: libraries in C++ complain of
    objects that outlive the interpreter.
    """
    if OF_MODELS in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Leave what is decorated with `torch.compile` within the block as it is.

    Whatever is decorated later is compiled as ever.
    """
    before = os.environ.get(DISABLE_COMPILER)
    os.environ[DISABLE_COMPILER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[DISABLE_COMPILER]
        else:
            os.environ[DISABLE_COMPILER] = before


def import_bitsandbytes() -> None:
    """Import bitsandbytes without torch's compiler, which would take 0.8 CPU seconds more.

    It decorates kernels with `torch.compile`, of which CPUs and NVIDIA's GPUs use none: there they
    are written in C++ and CUDA. peft imports bitsandbytes by itself: call this before.
    """
    with without_compiler():
        import bitsandbytes  # noqa: F401
