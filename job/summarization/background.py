"""One call at a time in a thread, while this one waits for the engine."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")

MAX_SECONDS_TO_END = 10.0  # of a call that nobody wants any more; a window takes a third of one


class Background(Generic[Result]):
    """Starts calls, each in a thread that does not keep the process alive."""

    def __init__(self) -> None:
        self._last: Future[Result] | None = None

    def start(self, call: Callable[[], Result]) -> Future[Result]:
        """Start a call and return its future, which also has what it raises."""
        self._last = Future()
        arguments = (call, self._last)
        threading.Thread(target=_run, args=arguments, name="prepare", daemon=True).start()
        return self._last

    def end(self) -> None:
        """Block until the last call has ended, or for so many seconds.

        Python must not exit while a thread is in a tokenizer, whose code it would unwind.
        """
        if self._last is not None:
            wait([self._last], MAX_SECONDS_TO_END)


def run_here(call: Callable[[], Result]) -> Future[Result]:
    """Run a call in this thread, and return its future. It raises what the call raises."""
    future: Future[Result] = Future()
    future.set_result(call())
    return future


def _run(call: Callable[[], Result], future: Future[Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised where the result is asked for
        future.set_exception(error)
