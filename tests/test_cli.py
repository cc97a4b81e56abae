"""The command line: what it prints and where, how it ends, and what it does not import."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from job import cli, errors
from job.errors import ExitCode

ROOT = Path(__file__).parent.parent
LEAST = "run: small\nmodel: {base: org/base}\ndata: {train: t.jsonl}\noutput: runs\n"
HEAVY = [
    "torch",
    "transformers",
    "datasets",
    "boto3",
    "peft",
    "trl",
    "accelerate",
    "pyarrow",
]


def process(*arguments, cwd, environment=None):
    """Run `python -m job` as a user does: with warnings as errors, and no variables of recap."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RECAP_")}
    paths = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-m", "job", *arguments],
        cwd=cwd,
        env=clean | paths | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def python(code, cwd):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# In a process of its own


def test_the_module_is_the_command_line(tmp_path):
    assert "\n  summarize " in process("--help", cwd=tmp_path).stdout
    result = process("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout[:6]) == (0, "recap ")


def test_config_mistakes_go_to_stderr_without_traceback_and_end_with_64(tmp_path):
    (tmp_path / "c.yaml").write_text(LEAST + "training: {learning_rat: 0.1}\n")
    result = process("train", "c.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (ExitCode.CONFIG, "")
    assert result.stderr == (
        "config error: 1 mistake in c.yaml\n\n"
        "  line 5  training.learning_rat  unknown key; did you mean learning_rate?\n"
    )


LIGHT = """
import sys
import job.cli
assert "pydantic" not in sys.modules, "imported by the command line itself"
for arguments, wanted in CALLS:
    code = job.cli.run(arguments)
    imported = [name for name in HEAVY if name in sys.modules]
    assert (code, imported) == (wanted, []), (arguments, code, imported)
print("light")
"""


def test_help_and_mistakes_never_import_what_takes_seconds(tmp_path):
    (tmp_path / "bad.yaml").write_text("run: a b\n")
    calls = [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["schema", "train"], 0),
        (["train", "bad.yaml"], 64),
    ]
    result = python(f"HEAVY = {HEAVY}\nCALLS = {calls}\n{LIGHT}", tmp_path)
    assert result.stdout.endswith("light\n"), result.stdout + result.stderr


PROBE = """
import os, resource, signal, sys, tempfile
from job import cli
cli.SECONDS_TO_STOP = 0.5  # a tenth of what a user waits
def body():
    {statement}
cli.recap.command("probe")(body)
sys.exit(cli.run(["probe"]))
"""


def probe(tmp_path, statement):
    """Run a process whose command executes `statement`."""
    return python(PROBE.format(statement=statement.strip().replace("\n", "\n    ")), tmp_path)


def test_a_machine_without_a_place_for_temporary_files_is_no_bug(tmp_path):
    no_file_grows = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    result = probe(tmp_path, f"{no_file_grows}\ntempfile.gettempdir()")
    assert result.returncode == ExitCode.OUTPUT
    assert result.stderr.startswith("error: No usable temporary directory found in [")
    assert "set TMPDIR" in result.stderr


PREEMPTED = "error: preempted: stopped before it finished; run the same command again\n"
STOP = "os.kill(os.getpid(), signal.SIGTERM)"
SWALLOWED = f"""
while True:
    try:
        {STOP}
        signal.pause()
    except Exception:
        pass
"""
LOST = f"""
class Lost:
    def __del__(self):
        {STOP}
Lost()
while True:
    signal.pause()
"""
HELD_UP = f"""
try:
    {STOP}
    signal.pause()
finally:
    while True:
        signal.pause()
"""
TWICE = f"""
try:
    {STOP}
    signal.pause()
finally:
    {STOP}
    print("tidied")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_with_75_and_says_preempted(tmp_path, number):
    result = probe(tmp_path, f"os.kill(os.getpid(), {int(number)})\nsignal.pause()")
    assert result.returncode == ExitCode.RETRY
    assert result.stderr.strip() == PREEMPTED.strip()


def test_a_stop_signal_is_no_exception_that_a_library_swallows(tmp_path):
    result = probe(tmp_path, SWALLOWED)
    assert result.returncode == ExitCode.RETRY
    assert result.stderr.startswith("error: preempted")


@pytest.mark.parametrize("statement", [LOST, HELD_UP], ids=["lost", "held up"])
def test_a_stop_whose_exception_is_lost_still_ends_the_command(tmp_path, statement):
    result = probe(tmp_path, statement)
    assert result.returncode == ExitCode.RETRY
    assert result.stderr.endswith(PREEMPTED)


def test_a_second_stop_signal_does_not_disturb_the_end(tmp_path):
    result = probe(tmp_path, TWICE)
    assert (result.returncode, result.stdout) == (ExitCode.RETRY, "tidied\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_after_the_end_does_not_change_how_it_ended(tmp_path, number):
    # A module is deleted at the very last, when Python has no handlers any more.
    code = (
        "import os, sys\n"
        "from job import cli\n"
        "class Late:\n"
        f"    def __del__(self, kill=os.kill, me=os.getpid()): kill(me, {int(number)})\n"
        "cli.recap.command('probe')(lambda: print('done', flush=True))\n"
        "sys.kept, sys.argv = Late(), ['recap', 'probe']\n"
        "cli.main()\n"
    )
    result = python(code, tmp_path)
    assert (result.returncode, result.stdout) == (ExitCode.DONE, "done\n"), result.stderr


# In this process


def test_help_names_every_command_and_each_has_an_example(recap):
    whole = recap("--help")
    assert whole.code == 0
    for command in ("train", "summarize", "evaluate", "feedback", "plan", "schema", "demo"):
        assert f"\n  {command} " in whole.out
        example = recap(command, "--help").out.splitlines()[-1]
        assert example.startswith(f"  Example: recap {command}"), "on one line, to be copied"


def test_a_share_that_is_none_is_a_mistake(recap, folder):
    (folder / "night.yaml").write_text("run: n\ninput: in\noutput: out\nadapter: a\n")
    done = recap("summarize", "night.yaml", "--shard", "3/3")
    assert done.code == ExitCode.CONFIG
    assert "--shard 3/3: wanted i/n with i from 0 to n - 1" in done.err


def test_missing_config_ends_with_66(recap, folder):
    result = recap("summarize", "none.yaml")
    assert result.code == ExitCode.MISSING
    remedy = "give a config's path, s3://… or - for standard input"
    assert result.err == f"error: none.yaml: no such file; {remedy}\n"


def test_wrong_command_line_ends_with_2_and_a_suggestion(recap, folder):
    result = recap("trian")
    assert result.code == ExitCode.USAGE
    assert "Did you mean 'train'?" in result.err
    assert recap("train", "c.yaml", "--ste", "a=1").code == ExitCode.USAGE
    assert "'date' is not NAME=VALUE" in recap("plan", "c.yaml", "--var", "date").err


@pytest.mark.parametrize("command", ["train", "summarize", "evaluate", "feedback", "plan"])
def test_a_command_without_config_asks_for_one_as_help_does(recap, command):
    result = recap(command)
    assert result.code == ExitCode.USAGE
    assert result.err.endswith(
        "\nError: no config: give a path, s3://… or -, or set RECAP_CONFIG\n"
    )
    help_text = recap(command, "--help").out
    assert (
        "CONFIG is a path, s3://… or - for standard input; by default $RECAP_CONFIG." in help_text
    )


def test_config_comes_from_the_environment_where_no_argument_names_it(recap, folder, monkeypatch):
    (folder / "c.yaml").write_text("run: a b\n")
    monkeypatch.setenv("RECAP_CONFIG", "c.yaml")
    result = recap("train")
    assert result.code == ExitCode.CONFIG
    assert "mistakes in c.yaml" in result.err


def test_config_comes_from_standard_input(recap, monkeypatch):
    config = io.BytesIO(b"input: i\noutput: o\nadapter: a\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(config))
    result = recap("evaluate", "-", "--set", "run=a b")
    assert result.code == ExitCode.CONFIG
    assert result.err.startswith("config error: 1 mistake in standard input\n\n  --set  run  got")


def test_date_is_asked_for(recap, folder):
    (folder / "c.yaml").write_text("run: night\ninput: 'dt={date}/'\noutput: out\nadapter: a\n")
    result = recap("summarize", "c.yaml")
    assert result.code == ExitCode.CONFIG
    assert "{date} has no value; give --var date=2026-01-31" in result.err


@pytest.mark.parametrize("command", ["train", "summarize", "evaluate", "feedback"])
def test_schema_is_printed_as_json(recap, command):
    result = recap("schema", command)
    assert json.loads(result.out)["required"][0] == "run"


@pytest.fixture
def end_with(recap):
    """Run a command that raises an error, and return how it ended."""

    def call(error):
        def body():
            raise error

        cli.recap.add_command(click.Command("probe", callback=body))
        return recap("probe")

    yield call
    cli.recap.commands.pop("probe", None)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 64),
        ("DataError", 65),
        ("DamagedError", 65),
        ("MissingError", 66),
        ("OutputError", 73),
        ("AlreadyExistsError", 73),
        ("RetryError", 75),
        ("PreemptedError", 75),
        ("GateError", 76),
        ("ForbiddenError", 77),
    ],
)
def test_every_foreseen_end_has_its_code_and_one_line(end_with, name, code):
    result = end_with(getattr(errors, name)("what happened"))
    prefix = "config error" if code == 64 else "error"
    assert (result.code, result.err) == (code, f"{prefix}: what happened\n")


REPORT = "  this is a bug in recap: please report it with the output above\n"


def test_an_unforeseen_end_is_a_bug_with_its_traceback(end_with):
    result = end_with(KeyError("lost"))
    assert result.code == ExitCode.BUG
    assert result.err.startswith("Traceback")
    assert result.err.endswith(f"error: KeyError: 'lost'\n{REPORT}")


def test_an_eof_error_of_a_library_is_a_bug_and_no_preemption(end_with):
    result = end_with(EOFError("Ran out of input"))
    assert result.code == ExitCode.BUG
    assert "Traceback" in result.err
    assert result.err.endswith(f"error: EOFError: Ran out of input\n{REPORT}")


@pytest.mark.parametrize("error", [KeyError, errors.DataError])
def test_no_end_shows_a_secret_of_the_environment(end_with, monkeypatch, error):
    monkeypatch.setenv("HF_TOKEN", "very-secret-token")
    result = end_with(error("with very-secret-token and http://me:pw@host"))
    assert "with *** and http://***@host" in result.err
    assert "very-secret-token" not in result.err
    assert "me:pw" not in result.err


def test_a_plan_shows_no_secret_of_the_environment(recap, folder, monkeypatch):
    (folder / "c.yaml").write_text(LEAST.replace("org/base", "/nowhere/very-secret-token"))
    monkeypatch.setenv("HF_TOKEN", "very-secret-token")
    result = recap("plan", "c.yaml")
    assert result.code == ExitCode.MISSING
    assert "/nowhere/***" in result.out
    assert "very-secret-token" not in result.out + result.err


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EFBIG, "the file is too large"),
        (errno.EROFS, "it is mounted read-only"),
    ],
)
def test_a_machine_that_takes_no_bytes_is_no_bug(end_with, number, why):
    result = end_with(OSError(number, "what the system says", "out/part"))
    assert (result.code, result.err) == (
        ExitCode.OUTPUT,
        f"error: out/part cannot be written: {why}: make room, or choose another output\n",
    )


EVIL = "a\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\nerror: forged\n"


def test_no_file_sends_a_command_or_a_forged_line_to_the_terminal(recap, folder):
    (folder / "in").mkdir()
    records = [
        {"id": "role", "turns": [{"role": EVIL, "text": "x"}]},
        {EVIL: "key"},
        {"id": EVIL, "turns": [{"role": "agent", "text": "x"}]},
        {"id": EVIL, "turns": [{"role": "agent", "text": "x"}]},
    ]
    (folder / "in" / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "night.yaml").write_text("run: n\ninput: in\noutput: out\nadapter: a\n")
    for table in ("id,dialogue\n", f'"{EVIL[:7]}\nerror: forged",text\n1,2\n'):
        (folder / "in" / "b.csv").write_text(table)
        done = recap("plan", "night.yaml")
        assert done.code
        shown = done.out + done.err
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
        assert not [
            line for line in shown.splitlines() if line.lstrip().startswith("error: forged")
        ]
        assert "\\x1b[31m" in shown


def test_a_wrong_command_line_is_shown_without_control_characters(recap):
    done = recap("plan", "x\x1b[31m.yaml", "--\x1b[31m")
    assert done.code == ExitCode.USAGE
    assert "\x1b" not in done.err
    assert "\\x1b[31m" in done.err
