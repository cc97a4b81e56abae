"""The command line: arguments → config → one call → exit code.

Imports only click and the exception tree; a command imports what it needs when it runs, so that help and mistakes in a
config are told at once. Knows nothing of how anything is done.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from types import FrameType
from typing import Any

import click

from job.arguments import configured, named
from job.errors import ExitCode, RecapError, Stopped, bug, unwritable
from job.submit.commands import submit

PREEMPTED = "preempted: told to stop before it was done; run the same command again"
SECONDS_TO_END = 5.0  # after a stop signal; docker kills after 10, Kubernetes after 30
NO_TEMPORARY = (
    "No usable temporary directory"  # what Python's tempfile says, and has no error of its own for
)


def main() -> None:
    """What `recap` runs."""
    try:
        code = run(sys.argv[1:])
        _ignore_stops()
    except (Stopped, KeyboardInterrupt):
        code = _end(ExitCode.RETRY, PREEMPTED)
    if code == ExitCode.RETRY:  # Python itself would wait for threads that a store holds up
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line to its end; its exit code."""
    try:
        return (
            recap.main(list(arguments), prog_name="recap", standalone_mode=False) or ExitCode.DONE
        )
    except click.Abort as abort:
        # click's name for Ctrl-C, and for an EOFError, which a library may raise however often the job is run again.
        return (
            _failed(abort.__cause__)
            if isinstance(abort.__cause__, EOFError)
            else _end(ExitCode.RETRY, PREEMPTED)
        )
    except click.ClickException as error:
        return _refused(error)
    except Stopped:
        return _end(ExitCode.RETRY, PREEMPTED)
    except RecapError as error:
        return _end(error.exit_code, str(error))
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """What nobody foresaw."""
    from job.printable import entry

    why = unwritable(error)
    if why:
        return _end(
            ExitCode.OUTPUT,
            f"{getattr(error, 'filename', None) or 'a file'} cannot be written: {why}",
        )
    if isinstance(error, FileNotFoundError) and NO_TEMPORARY in str(
        error.strerror
    ):  # libraries want one when imported
        return _end(
            ExitCode.OUTPUT,
            f"{error.strerror}: mount a writable folder at one of them, or set TMPDIR",
        )
    click.echo(entry("".join(traceback.format_exception(error))), err=True, nl=False)
    return _end(ExitCode.BUG, bug(error))


def _refused(error: click.ClickException) -> int:
    """Print a wrong command line, with the usage, as click words it; return the exit code."""
    from job.printable import printable

    message = StringIO()
    error.show(file=message)
    click.echo(printable(message.getvalue()), err=True, nl=False)
    return error.exit_code


def _end(code: int, message: str) -> int:
    """Tell a person how it ended, on stderr; the code."""
    from job.printable import entry

    kind = "config error" if code == ExitCode.CONFIG else "error"
    click.echo(entry(f"{kind}: {message}"), err=True)
    return code


def _tell_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"recap {version('recap')}")
    except PackageNotFoundError:
        click.echo("recap (a checkout that is not installed)")
    context.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong command line, 64 wrong config, 65 wrong data, 66 something is not there, "
    "70 a bug, 73 the output cannot be written, 75 run me again, 77 not allowed.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Tell the version.",
)
def recap() -> None:
    """Fine-tune a language model to summarize conversations, prove that it helps, and summarize every night.

    CONFIG is a YAML file: a path, s3://… or - for standard input; without an argument it is $RECAP_CONFIG.
    """
    from job.telemetry import configure_logging

    _sigterm_preempts()
    configure_logging()


@recap.command(
    epilog="\b\nExample: recap train examples/support-chat.yaml --set output=s3://my-bucket/runs"
)
@configured
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `recap plan` does.")
@click.option(
    "--fresh",
    is_flag=True,
    help="Where the run's folder belongs to another config, data or versions, start anew in a folder beside it.",
)
def train(
    config: str, overrides: Sequence[str], variables: Sequence[str], dry_run: bool, fresh: bool
) -> int:
    """Fine-tune, evaluate and publish an adapter. A run that was interrupted goes on by itself."""
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = named(variables)
    loaded = load_config("train", read_config(config), overrides, values)
    from job.preflight.training import plan_training

    # What stands in the way is told at once, and before any process loads a model.
    found = plan_training(loaded, fresh, brief=not dry_run)
    if dry_run or found.error:
        return _tell(found)
    from job.telemetry import event

    for line in found.story:
        event(line)
    if found.done:
        event("already done", run=found.run, output=loaded.output)
        return ExitCode.DONE
    from job.launch.supervisor import run_training

    outcome = run_training(loaded.model_copy(update={"run": found.run}))
    return _end(outcome.exit_code, outcome.message) if outcome.exit_code else ExitCode.DONE


@recap.command(epilog="\b\nExample: recap summarize examples/nightly.yaml --var date=2026-01-31")
@configured
@click.option(
    "--shard",
    metavar="I/N",
    help="Do share I, from 0 on, of N; else as AWS Batch's array index or Kubernetes' completion index says.",
)
def summarize(
    config: str, overrides: Sequence[str], variables: Sequence[str], shard: str | None
) -> None:
    """Summarize a file, many files or a prefix of conversations."""
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = named(variables)
    loaded = load_config("summarize", read_config(config), overrides, values)
    from job.summarization.shard import find_shard

    share = find_shard(shard, loaded.shards, os.environ)
    _wait_briefly()
    from job.summarization.summarize import summarize as summarize_all

    summarize_all(loaded, shard=share)


@recap.command(
    epilog="\b\nExample: recap evaluate examples/evaluate.yaml --set evaluation.max_conversations=100"
)
@configured
def evaluate(config: str, overrides: Sequence[str], variables: Sequence[str]) -> None:
    """Score an adapter, or a file of summaries, against references."""
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = named(variables)
    loaded = load_config("evaluate", read_config(config), overrides, values)
    _wait_briefly()
    from job.evaluation.run import run_evaluation
    from job.evaluation.table import score_table
    from job.printable import printable

    click.echo(printable(score_table(run_evaluation(loaded))))


@recap.command(epilog="\b\nExample: recap plan examples/nightly.yaml --var date=2026-01-31")
@configured
@click.option(
    "--command",
    type=click.Choice(["train", "summarize", "evaluate"]),
    help="Whose config it is; else by its keys.",
)
def plan(config: str, overrides: Sequence[str], variables: Sequence[str], command: Any) -> int:
    """Tell all that can be known before paying; needs no GPU."""
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = named(variables)
    return _plan(load_config(command, read_config(config), overrides, values))


recap.add_command(submit)


@recap.command(epilog="\b\nExample: recap schema train > recap-train.schema.json")
@click.argument("command", type=click.Choice(["train", "summarize", "evaluate"]))
def schema(command: Any) -> None:
    """Print the JSON Schema of a config, for editors."""
    from job.config.reference import schema as schema_of

    click.echo(json.dumps(schema_of(command), indent=2, ensure_ascii=False))


@recap.command(epilog="\b\nExample: recap demo")
def demo() -> None:
    """Run the whole story on this machine: no GPU, no account."""
    from job.demo.story import run_demo

    run_demo()


def _plan(config: Any) -> int:
    from job.preflight.plan import plan as plan_of

    return _tell(plan_of(config))


def _tell(plan: Any) -> int:
    """Print a plan with all that stands in the way; the first of it decides how the command ends."""
    from job.printable import printable

    click.echo(printable(plan.text()))
    if plan.error:
        raise plan.error
    return ExitCode.DONE


def _wait_briefly() -> None:
    """Set how OpenMP's threads wait, before anything loads torch; training processes get it too."""
    from job.launch.variables import thread_variables

    os.environ.update(thread_variables(os.environ))


def _sigterm_preempts() -> None:
    """Let a stop signal end the command in order, or at once where that takes too long; a second one changes nothing.

    Too long is when a store does not answer, or when the exception is lost: Python drops one that is raised in a
    `__del__`. While training runs, its supervisor takes the signals instead.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, _end_at_once)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_END)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


def _ignore_stops() -> None:
    """Let no stop signal change how it ended: Python gives them back their deadly meaning before it is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"error: {PREEMPTED}\n".encode())  # what Python buffers may be half written
    os._exit(ExitCode.RETRY)
