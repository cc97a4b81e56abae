"""The command line: arguments → config → one call → exit code.

Imports only click and the errors. A command imports what it needs when it runs, so that help and
mistakes in a config are printed at once.
"""

import codecs
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from job.arguments import parse_variables, takes_config, takes_dry_run
from job.errors import ExitCode, RecapError, Stopped, bug, unwritable
from job.evaluation.commands import champion
from job.feedback.commands import feedback
from job.preflight.commands import plan, plan_and_print
from job.submit.commands import submit
from job.watch.commands import watch

# Signs of recap's own texts, for a terminal whose encoding has none of them.
IN_ASCII = {"✓": "+", "✗": "x", "–": "-", "—": "-", "…": "...", "→": "->", "±": "+/-"}

PREEMPTED = "preempted: stopped before it finished; run the same command again"
SECONDS_TO_STOP = 5.0  # docker kills 10 seconds after its stop signal, Kubernetes after 30

# The message of Python's tempfile, which raises no error class of its own.
NO_TEMPORARY_FOLDER = "No usable temporary directory"


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    _replace_unknown_signs()
    try:
        code = run(sys.argv[1:])
        _ignore_stop_signals()
    except (Stopped, KeyboardInterrupt):
        code = _report(ExitCode.RETRY, PREEMPTED)

    # Python's own exit would wait for threads, which may hang in a store that does not answer.
    if code == ExitCode.RETRY:
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line, report its error on stderr, and return the exit code."""
    try:
        code = recap.main(list(arguments), prog_name="recap", standalone_mode=False)
    except click.Abort as abort:
        # click raises it for Ctrl-C, and for an EOFError. A library may raise an EOFError too, and
        # will do so again however often the job is repeated.
        if isinstance(abort.__cause__, EOFError):
            return _report_unexpected(abort.__cause__)
        return _report(ExitCode.RETRY, PREEMPTED)
    except click.ClickException as error:
        return _report_usage(error)
    except Stopped:
        return _report(ExitCode.RETRY, PREEMPTED)
    except RecapError as error:
        return _report(error.exit_code, str(error))
    except Exception as error:
        return _report_unexpected(error)
    return code or ExitCode.DONE


def _replace_unknown_signs() -> None:
    """Print what the encoding of the terminal lacks in ASCII, where Python would raise an error."""
    codecs.register_error("recap", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="recap")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), "only printing has this"
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(sign, "?") for sign in lacking), error.end


def _report(code: int, message: str) -> int:
    """Print an error on stderr, and return the code."""
    from job.printable import entry

    kind = "config error" if code == ExitCode.CONFIG else "error"
    click.echo(entry(f"{kind}: {message}"), err=True)
    return code


def _report_usage(error: click.ClickException) -> int:
    """Print a wrong command line with its usage, as click words it, and return the exit code."""
    from job.printable import printable

    message = io.StringIO()
    error.show(file=message)
    click.echo(printable(message.getvalue()), err=True, nl=False)
    return error.exit_code


def _report_unexpected(error: Exception) -> int:
    """Print an error that recap does not raise itself, and return the exit code.

    It is a bug, with its traceback, unless the machine cannot be written to.
    """
    from job.printable import entry

    why = unwritable(error)
    if why:
        name = getattr(error, "filename", None) or "a file"
        return _report(ExitCode.OUTPUT, f"{name} cannot be written: {why}")

    # Libraries look for a temporary folder when they are imported.
    if isinstance(error, FileNotFoundError) and NO_TEMPORARY_FOLDER in str(error.strerror):
        remedy = "mount a writable folder at one of them, or set TMPDIR"
        return _report(ExitCode.OUTPUT, f"{error.strerror}: {remedy}")

    click.echo(entry("".join(traceback.format_exception(error))), err=True, nl=False)
    return _report(ExitCode.BUG, bug(error))


def _print_version(context: click.Context, _parameter: click.Parameter, is_given: bool) -> None:
    if not is_given:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"recap {version('recap')}")
    except PackageNotFoundError:
        click.echo("recap (a checkout that is not installed)")
    context.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong command line, 64 wrong config, 65 wrong data, 66 something "
    "is not there, 70 a bug, 73 the output cannot be written, 75 run me again, 76 the adapter did "
    "not pass its gate, or nights changed, 77 not allowed.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def recap() -> None:
    """Fine-tune a language model to summarize conversations, and summarize every night.

    CONFIG is a YAML file: a path, s3://… or - for standard input. Without the argument it is
    $RECAP_CONFIG.
    """
    from job.telemetry import configure_logging

    _stop_on_sigterm()
    configure_logging()


@recap.command(
    epilog="\b\nExample: recap train examples/support-chat.yaml --set output=s3://my-bucket/runs"
)
@takes_config
@takes_dry_run
@click.option(
    "--fresh",
    is_flag=True,
    help="If the run's folder belongs to another config, data, versions, or tokenizer, chat "
    "template or generation_config.json of the base, start in a new folder beside it.",
)
def train(
    config: str, overrides: Sequence[str], variables: Sequence[str], dry_run: bool, fresh: bool
) -> int:
    """Fine-tune, evaluate and publish an adapter.

    An interrupted run resumes when the same command runs again. With publish.gate, the adapter is
    judged, and becomes publish.champion if it passes; otherwise the command ends with 76.
    """
    from job.config.load import load_config
    from job.evaluation.metrics.all_metrics import METRICS
    from job.storage.config_file import read_config

    values = parse_variables(variables)
    loaded = load_config("train", read_config(config), overrides, values, METRICS)
    if dry_run:
        return plan_and_print(loaded, fresh=fresh)
    _require_gpus()
    from job.preflight.training import plan_training

    # Problems are reported now, before several processes load the model.
    plan = plan_training(loaded, fresh, brief=True)
    if plan.errors and not plan.done:
        raise plan.errors

    from job.telemetry import event

    for line in plan.story:
        event(line)
    if plan.done:
        event("already done", run=plan.run, output=loaded.output)
        if plan.not_passed:
            raise plan.not_passed
        return ExitCode.DONE

    from job.launch.supervisor import run_training

    outcome = run_training(loaded.model_copy(update={"run": plan.run}))
    if outcome.exit_code == ExitCode.DONE:
        return ExitCode.DONE
    return _report(outcome.exit_code, outcome.message)


@recap.command(epilog="\b\nExample: recap summarize examples/nightly.yaml --var date=2026-01-31")
@takes_config
@takes_dry_run
@click.option(
    "--shard",
    metavar="I/N",
    help="Summarize share I of N, counted from 0. By default the array index of AWS Batch or the "
    "completion index of Kubernetes decides.",
)
def summarize(
    config: str,
    overrides: Sequence[str],
    variables: Sequence[str],
    dry_run: bool,
    shard: str | None,
) -> int:
    """Summarize a file, many files or a prefix of conversations."""
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = parse_variables(variables)
    loaded = load_config("summarize", read_config(config), overrides, values)
    if dry_run:
        return plan_and_print(loaded)
    from job.summarization.shard import find_shard

    share = find_shard(shard, loaded.shards, os.environ)
    _set_thread_variables()
    _require_gpus()
    if share.claims is None:
        from job.gpus.lines import gpu_lines

        with gpu_lines():
            return _summarize_on_this_machine(loaded, share)
    from job.launch.outcome import SUPERVISOR
    from job.launch.processes import die_with_parent

    die_with_parent(int(os.environ.get(SUPERVISOR, 0)))
    return _summarize_in_this_process(loaded, share)


@recap.command(
    epilog="\b\nExample: recap evaluate examples/evaluate.yaml "
    "--set evaluation.max_conversations=100"
)
@takes_config
@takes_dry_run
def evaluate(config: str, overrides: Sequence[str], variables: Sequence[str], dry_run: bool) -> int:
    """Score an adapter, or a file of summaries, against references.

    With publish.gate, it is judged, too: an adapter that passes becomes publish.champion. What does
    not pass ends the command with 76.
    """
    from job.config.load import load_config
    from job.evaluation.metrics.all_metrics import METRICS
    from job.storage.config_file import read_config

    values = parse_variables(variables)
    loaded = load_config("evaluate", read_config(config), overrides, values, METRICS)
    if dry_run:
        return plan_and_print(loaded)
    _set_thread_variables()
    if loaded.adapter or loaded.champion:  # to score a file of summaries needs none
        _require_gpus()
    from job.evaluation.gate_screen import screen_or_raise
    from job.evaluation.run import run_evaluation
    from job.evaluation.table import score_table
    from job.printable import printable

    evaluation = run_evaluation(loaded).evaluation
    click.echo(printable(score_table(evaluation)))
    if evaluation.gate:
        judged = str(loaded.adapter or loaded.summaries)
        screen = screen_or_raise(evaluation.gate, judged, loaded.publish.champion)
        click.echo(printable(f"\n{screen}"))
    return ExitCode.DONE


recap.add_command(plan)
recap.add_command(champion)
recap.add_command(feedback)
recap.add_command(submit)
recap.add_command(watch)


@recap.command(epilog="\b\nExample: recap schema train > recap-train.schema.json")
@click.argument(
    "command",
    type=click.Choice(["train", "summarize", "evaluate", "feedback", "watch"]),
)
def schema(command: Any) -> None:
    """Print the JSON Schema of a config, for editors."""
    from job.config.reference import schema as schema_of

    click.echo(json.dumps(schema_of(command), indent=2, ensure_ascii=False))


@recap.command(epilog="\b\nExample: recap demo")
def demo() -> None:
    """Run train and summarize here: no GPU, no account."""
    from job.demo.story import run_demo

    run_demo()


def _require_gpus() -> None:
    """Raise an error if this job was given GPUs that torch cannot use, before it fetches anything.

    Loads torch if GPUs are required.
    """
    from job.gpus.required import require_gpus

    require_gpus(os.environ)


def _summarize_on_this_machine(config: Any, shard: Any) -> int:
    """Summarize the shard and return the exit code: in this process, or in workers below it."""
    from job.environment import count_gpus
    from job.gpus.visible import visible_gpus
    from job.summarization.workers import gpus_of_a_worker, plan_workers, run_workers

    gpus = visible_gpus(os.environ, count_gpus)
    tensor_parallel = gpus_of_a_worker(config, len(gpus))
    layout = plan_workers(config.workers, tensor_parallel, gpus)
    if layout.workers == 1 and tensor_parallel == 1:
        return _summarize_in_this_process(config, shard)
    outcome = run_workers(config, shard, layout)
    if outcome.exit_code == ExitCode.DONE:
        return ExitCode.DONE
    return _report(outcome.exit_code, outcome.message)


def _summarize_in_this_process(config: Any, shard: Any) -> int:
    from job.summarization.summarize import summarize as summarize_all

    summarize_all(config, shard=shard)
    return ExitCode.DONE


def _set_thread_variables() -> None:
    """Let OpenMP's threads wait briefly. Has an effect only before torch is loaded."""
    from job.launch.variables import thread_variables

    os.environ.update(thread_variables(os.environ))


def _stop_on_sigterm() -> None:
    """Raise `Stopped` at the first SIGTERM; a later one changes nothing.

    While a training runs, its supervisor handles the signals instead.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)

        # The exception may not end the process: a store may not answer during the cleanup, and
        # Python drops an exception that is raised in a `__del__`.
        signal.signal(signal.SIGALRM, _exit_at_once)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_STOP)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


def _ignore_stop_signals() -> None:
    """Keep the exit code that is decided: at its very end, Python restores the default handlers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _exit_at_once(_number: int, _frame: FrameType | None) -> None:
    # Not by print: the signal may have interrupted a write to Python's own buffer.
    with suppress(OSError):
        os.write(2, f"error: {PREEMPTED}\n".encode())
    os._exit(ExitCode.RETRY)
