"""Deploy a stack under a throw-away name, try what must work on AWS, and remove everything again.

`make submit-check` runs it, for people with an account: the demo's training and night on CPU
machines through `recap submit`, one of them stopped, every exit code, every alarm.

We have not run this on AWS ourselves yet. It was tried against stand-ins of the services only.
"""

import argparse
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from deploy import DIRTY, RefusedError, confirm
from submit_check_removal import remove
from submit_check_steps import Check, Result

PREFIX = "recap-check-"
NOT_RUN = "We have not run this on AWS ourselves yet: it was tried against stand-ins only."


@dataclass(frozen=True)
class Step:
    """A part of the check. Without it, the steps after it cannot run if it is `needed`."""

    title: str
    minutes: str
    cost: str
    run: Callable[[], Sequence[Result]]
    needed: bool = False


def main() -> None:
    """Read the command line and check, or remove what an earlier check left."""
    given = _arguments()
    name = given.remove or f"{PREFIX}{uuid.uuid4().hex[:8]}"
    # Whoever stops the check wants its machines removed, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if given.dry_run:
            print(plan(steps(Check(None, name, given.tag)), name))
            return
        session = boto3.session.Session()
        if given.remove:
            sys.exit(1 if removal(session, name) else 0)
        _ask(session, name, given)
        check = Check(session, name, given.tag)
        sys.exit(run(steps(check), lambda: removal(session, name), given.keep, name))
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOT_RUN)
    parser.add_argument("--tag", default="none", help="what the images are named after: the commit")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--keep", action="store_true", help="remove nothing at the end")
    parser.add_argument("--dry-run", action="store_true", help="only print the steps and costs")
    parser.add_argument("--remove", metavar="NAME", help="only remove what this check left")
    given = parser.parse_args()
    if given.remove and not given.remove.startswith(PREFIX):
        parser.error(f"{given.remove} is none of a check's: their names begin with {PREFIX}")
    return given


def steps(check: Check) -> list[Step]:
    """Return the steps in their order. Nothing runs yet."""
    return [
        Step("deploy both stacks", "4", "alarms and schedules, < $0.01", check.deploy, True),
        Step("send the alarms to a queue of the check's own", "0", "none", check.subscribe, True),
        Step("build and push both images", "10, by your network", "< $0.01", check.push, True),
        Step("upload the demo's files and configs", "1", "none", check.upload, True),
        Step("submit a job that no machine can hold", "0", "none", check.block_a_queue),
        Step("train, and stop the task once: 75, run again, 0", "10", "$0.03", check.train, True),
        Step("summarize: 0", "4", "$0.02", check.summarize),
        Step("provoke 64, 65, 66 and 77", "2", "$0.01", check.fail_in_each_way),
        Step("set each alarm off", "1", "none", check.set_alarms_off),
        Step("wait for the messages of all", "up to 15", "$0.03", check.await_messages),
    ]


def plan(steps: Sequence[Step], name: str) -> str:
    """Return the steps with minutes and costs, as a table."""
    rows = [("step", "minutes", "costs about"), *((s.title, s.minutes, s.cost) for s in steps)]
    rows.append((f"remove everything named {name}", "5", "none"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(
        [
            NOT_RUN,
            "",
            *lines,
            "",
            "The costs are estimates for machines of 4 vCPUs at $0.20 an hour, without taxes.",
            "Minutes are guesses. After a failed step, or Ctrl-C, everything is removed, too.",
        ]
    )


def run(steps: Sequence[Step], removal: Callable[[], list[str]], keep: bool, name: str) -> int:
    """Run the steps, remove everything, and print a table. Return 0 if all is as it must be.

    Also removes after a failure or Ctrl-C, which is raised again afterwards.
    """
    results: list[Result] = []
    left: list[str] = []
    try:
        for step in steps:
            print(f"── {step.title}", flush=True)
            try:
                results += step.run()
            except (Exception, SystemExit) as error:
                results.append(Result(step.title, "done", f"{type(error).__name__}: {error}"))
                if step.needed:
                    break
    finally:
        if keep:
            print(f"kept: remove it with `make submit-check REMOVE={name}`")
        else:
            left = removal()
        print("\n" + table(results))
    return 0 if results and not left and all(result.ok for result in results) else 1


def table(results: Sequence[Result]) -> str:
    """Return what was checked, what was expected, and what was found."""
    if not results:
        return "nothing was checked"
    width = max(len(result.what) for result in results)
    lines = []
    for result in results:
        mark = "✓" if result.ok else "✗"
        wanted = "" if result.ok else f", not {result.wanted}"
        lines.append(f"{mark} {result.what:{width}}  {result.found}{wanted}")
    return "\n".join(lines)


def removal(session: Any, name: str) -> list[str]:
    """Remove everything and return what is left; print it, with the remedy."""
    print(f"── remove everything named {name} (interrupted, it can be continued)", flush=True)
    try:
        left = remove(session, name)
    except BaseException:
        print(f"not all was removed: `make submit-check REMOVE={name}`", flush=True)
        raise
    for problem in left:
        print(f"left: {problem}")
    if left:
        print(f"try again with `make submit-check REMOVE={name}`")
    return left


def _ask(session: Any, name: str, given: argparse.Namespace) -> None:
    """Show account, region and plan. Raise RefusedError without a yes, or for changes."""
    if given.tag.endswith(DIRTY):
        raise RefusedError(f"{given.tag}: there are changes that no commit has: commit first")
    account = session.client("sts").get_caller_identity()["Account"]
    print(plan(steps(Check(None, name, given.tag)), name))
    question = f"Do this in account {account}, region {session.region_name}? [y/N] "
    if not given.yes and not confirm(question):
        raise RefusedError("nothing was done")


if __name__ == "__main__":
    main()
