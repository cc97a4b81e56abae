"""The process that summarizes for scores where vLLM may serve: see `job.inference.from_disk`.

`python -m job.inference.child REQUEST RESULT PARENT` reads candidates from one file, and writes
their summaries, or the error that it met, to another.
"""

import os
import pickle
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from job.errors import RecapError, is_out_of_memory, shortened
from job.inference.from_disk import Failed, Request, Results, summarize_group
from job.launch.processes import die_with_parent
from job.model.load import load_tokenizer
from job.printable import entry
from job.telemetry import configure_logging


def main(request: Path, result: Path) -> int:
    """Summarize, write the result, and return the exit code."""
    configure_logging()
    try:
        found: Results | Failed = _summarize(pickle.loads(request.read_bytes()))
    except RecapError as error:
        cause = error.__cause__ or error
        found = Failed(type(error)(str(error)), is_out_of_memory(cause))
    except Exception as error:
        print(entry(traceback.format_exc()), file=sys.stderr)
        found = Failed(RecapError(shortened(error)), is_out_of_memory(error))

    # Renamed when it is whole: a process that is killed here has written nothing.
    unfinished = result.with_suffix(".part")
    unfinished.write_bytes(pickle.dumps(found))
    unfinished.rename(result)
    return 1 if isinstance(found, Failed) else 0


def _summarize(request: Request) -> Results:
    group = []
    for candidate in request.group:
        folder = Path(request.tokenizers[candidate.name])
        tokenizer = load_tokenizer(folder, candidate.wish.section.trust_remote_code)
        model = replace(candidate.model, tokenizer=tokenizer)
        group.append(replace(candidate, model=model))
    return summarize_group(group, request.cache, has_bar=request.has_bar)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    # A stop is the parent's to handle: it ends this process. Not SIG_IGN, which processes of vLLM's
    # below this one would inherit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    code = main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: libraries of GPUs may hang while Python cleans up.
    os._exit(code)
