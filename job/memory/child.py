"""Answer a question in a process of its own: `python -m job.memory.child PARENT`.

Libraries keep fake tensors in their caches, and torch may end a process that computes with them.
Reads the pickled question from the standard input, and writes the pickled answer, or the error, to
the standard output.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

from job.errors import RecapError, shortened
from job.launch.processes import die_with_parent
from job.launch.variables import variables_of_no_rank
from job.memory.estimate import Estimate, Question, Unknown, estimate
from job.model.libraries import DISABLE_COMPILER
from job.safe_path import safe_variables

TIMEOUT_SECONDS = 600


def ask_child(
    question: Question, command: Sequence[str] = (sys.executable, "-m", "job.memory.child")
) -> Estimate | Unknown:
    """Return the answer of another process, or why there is none. Takes some seconds."""
    kept = variables_of_no_rank(os.environ)
    # On a machine with a GPU, `auto` would mean its dtype, and libraries would look for it. It
    # compiles nothing: bitsandbytes would import the compiler, which takes a second.
    own = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", DISABLE_COMPILER: "1"}
    environment = kept | safe_variables(kept) | own
    try:
        ended = subprocess.run(
            [*command, str(os.getpid())],
            input=pickle.dumps(question),
            capture_output=True,
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unknown(f"it took more than {TIMEOUT_SECONDS // 60} minutes")
    if ended.returncode != 0:
        return Unknown(f"the process that simulates ended with {ended.returncode}")
    found: Estimate | Unknown = pickle.loads(ended.stdout)
    return found


def answer(question: Question) -> Estimate | Unknown:
    """Return the estimate, or why a library or this base does not let a step be simulated."""
    try:
        return estimate(question)
    except RecapError as error:
        return Unknown(str(error))
    except Exception as error:  # fakes meet what a library never tried with them
        return Unknown(shortened(error), was_refused=True)


def main() -> None:
    """Answer the question of the standard input."""
    result = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print
    found = answer(pickle.loads(sys.stdin.buffer.read()))
    with os.fdopen(result, "wb") as file:
        file.write(pickle.dumps(found))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    main()
