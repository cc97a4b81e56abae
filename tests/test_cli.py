"""The command line as a real process: what it prints, where, how it ends, and what it does not import."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    "matplotlib",
    "pyarrow",
]


def recap(*arguments, cwd, environment=None, stdin=""):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RECAP_")}
    paths = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-m", "job", *arguments],
        cwd=cwd,
        env=clean | paths | (environment or {}),
        input=stdin,
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


def test_help_names_every_command_and_each_has_an_example(tmp_path):
    whole = recap("--help", cwd=tmp_path)
    assert whole.returncode == 0
    for command in ("train", "summarize", "evaluate", "plan", "schema", "demo"):
        assert f"\n  {command} " in whole.stdout
        example = recap(command, "--help", cwd=tmp_path).stdout.splitlines()[-1]
        assert example.startswith(f"  Example: recap {command}"), "on one line, to be copied"


def test_a_share_that_is_none_is_a_mistake(tmp_path):
    (tmp_path / "night.yaml").write_text("run: n\ninput: in\noutput: out\nadapter: a\n")
    done = recap("summarize", "night.yaml", "--shard", "3/3", cwd=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert "--shard 3/3: wanted i/n with i from 0 to n - 1" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["schema", "train"], ["train", "bad.yaml"]]
)
def test_help_and_mistakes_never_import_what_takes_seconds(tmp_path, arguments):
    (tmp_path / "bad.yaml").write_text("run: a b\n")
    code = (
        "import sys\n"
        "from job.cli import run\n"
        f"code = run({arguments})\n"
        f"assert code == {64 if 'bad.yaml' in arguments else 0}, code\n"
        f"print('imported:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    result = python(code, tmp_path)
    assert result.stdout.endswith("imported: []\n"), result.stdout + result.stderr


def test_help_does_not_even_import_the_config_models(tmp_path):
    result = python("import sys\nimport job.cli\nprint('pydantic' in sys.modules)", tmp_path)
    assert result.stdout == "False\n"


def test_version_is_told(tmp_path):
    result = recap("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout[:6]) == (0, "recap ")


def test_config_mistakes_go_to_stderr_without_traceback_and_end_with_64(tmp_path):
    (tmp_path / "c.yaml").write_text(LEAST + "training: {learning_rat: 0.1}\n")
    result = recap("train", "c.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (ExitCode.CONFIG, "")
    assert result.stderr == (
        "config error: 1 mistake in c.yaml\n\n"
        "  line 5  training.learning_rat  unknown key; did you mean learning_rate?\n"
    )


def test_missing_config_ends_with_66(tmp_path):
    result = recap("summarize", "none.yaml", cwd=tmp_path)
    assert result.returncode == ExitCode.MISSING
    assert (
        result.stderr
        == "error: none.yaml: no such file; give a config's path, s3://… or - for standard input\n"
    )


def test_wrong_command_line_ends_with_2_and_a_suggestion(tmp_path):
    result = recap("trian", cwd=tmp_path)
    assert result.returncode == ExitCode.USAGE
    assert "Did you mean 'train'?" in result.stderr
    assert recap("train", "c.yaml", "--ste", "a=1", cwd=tmp_path).returncode == ExitCode.USAGE
    assert (
        "'date' is not NAME=VALUE" in recap("plan", "c.yaml", "--var", "date", cwd=tmp_path).stderr
    )


@pytest.mark.parametrize("command", ["train", "summarize", "evaluate", "plan"])
def test_a_config_that_is_not_named_is_asked_for_and_help_says_where_it_comes_from(
    tmp_path, command
):
    result = recap(command, cwd=tmp_path)
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.endswith(
        "\nError: no config: give a path, s3://… or -, or set RECAP_CONFIG\n"
    )
    told = recap(command, "--help", cwd=tmp_path).stdout
    assert "CONFIG is a path, s3://… or - for standard input; by default $RECAP_CONFIG." in told


def test_config_comes_from_the_environment_where_no_argument_names_it(tmp_path):
    (tmp_path / "c.yaml").write_text("run: a b\n")
    result = recap("train", cwd=tmp_path, environment={"RECAP_CONFIG": "c.yaml"})
    assert result.returncode == ExitCode.CONFIG
    assert "mistakes in c.yaml" in result.stderr


def test_config_comes_from_standard_input(tmp_path):
    result = recap(
        "evaluate", "-", "--set", "run=a b", cwd=tmp_path, stdin="input: i\noutput: o\nadapter: a\n"
    )
    assert result.returncode == ExitCode.CONFIG
    assert result.stderr.startswith(
        "config error: 1 mistake in standard input\n\n  --set  run  got"
    )


def test_date_is_asked_for(tmp_path):
    (tmp_path / "c.yaml").write_text("run: night\ninput: 'dt={date}/'\noutput: out\nadapter: a\n")
    result = recap("summarize", "c.yaml", cwd=tmp_path)
    assert result.returncode == ExitCode.CONFIG
    assert "{date} has no value; give --var date=2026-01-31" in result.stderr


@pytest.mark.parametrize("command", ["train", "summarize", "evaluate"])
def test_schema_is_printed_as_json(tmp_path, command):
    result = recap("schema", command, cwd=tmp_path)
    assert json.loads(result.stdout)["required"][0] == "run"


def ending(tmp_path, statement):
    """How a process ends in which `statement` is what the command runs into."""
    code = (
        "import os, signal, sys, threading\n"
        "from job import cli, errors\n"
        "def body():\n"
        f"    {statement}\n"
        "cli.recap.command('probe')(body)\n"
        "sys.exit(cli.run(['probe']))\n"
    )
    return python(code, tmp_path)


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
        ("ForbiddenError", 77),
    ],
)
def test_every_foreseen_end_has_its_code_and_one_line(tmp_path, name, code):
    result = ending(tmp_path, f"raise errors.{name}('what happened')")
    prefix = "config error" if code == 64 else "error"
    assert (result.returncode, result.stderr) == (code, f"{prefix}: what happened\n")


def test_an_unforeseen_end_is_a_bug_with_its_traceback(tmp_path):
    result = ending(tmp_path, "raise KeyError('lost')")
    assert result.returncode == ExitCode.BUG
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("error: KeyError: 'lost'\n  this is a bug in recap: please report "
                                  "it with the output above\n")  # fmt: skip


def test_an_eof_error_of_a_library_is_a_bug_and_no_preemption(tmp_path):
    result = ending(tmp_path, "raise EOFError('Ran out of input')")
    assert result.returncode == ExitCode.BUG
    assert "Traceback" in result.stderr
    assert "error: EOFError: Ran out of input\n  this is a bug in recap" in result.stderr


@pytest.mark.parametrize("error", ["KeyError", "errors.DataError"])
def test_no_end_shows_a_secret_of_the_environment(tmp_path, monkeypatch, error):
    monkeypatch.setenv("HF_TOKEN", "very-secret-token")
    result = ending(
        tmp_path, f"raise {error}('with ' + os.environ['HF_TOKEN'] + ' and http://me:pw@host')"
    )
    assert "with *** and http://***@host" in result.stderr
    assert "very-secret-token" not in result.stderr
    assert "me:pw" not in result.stderr


def test_a_plan_shows_no_secret_of_the_environment(tmp_path):
    (tmp_path / "c.yaml").write_text(LEAST.replace("org/base", "/nowhere/very-secret-token"))
    result = recap("plan", "c.yaml", cwd=tmp_path, environment={"HF_TOKEN": "very-secret-token"})
    assert result.returncode == ExitCode.MISSING
    assert "/nowhere/***" in result.stdout
    assert "very-secret-token" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ENOSPC", "the disk is full"),
        ("EDQUOT", "the quota is used up"),
        ("EFBIG", "the file is too large"),
        ("EROFS", "it is mounted read-only"),
    ],
)
def test_a_machine_that_takes_no_bytes_is_no_bug(tmp_path, name, why):
    result = ending(
        tmp_path, f"raise OSError({getattr(errno, name)}, 'what the system says', 'out/part')"
    )
    assert (result.returncode, result.stderr) == (
        ExitCode.OUTPUT,
        f"error: out/part cannot be written: {why}: make room, or choose another output\n",
    )


def test_a_machine_without_a_place_for_temporary_files_is_no_bug(tmp_path):
    no_file_grows = "import resource, tempfile; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    result = ending(tmp_path, f"{no_file_grows}; tempfile.gettempdir()")
    assert result.returncode == ExitCode.OUTPUT
    assert result.stderr.startswith("error: No usable temporary directory found in [")
    assert "set TMPDIR" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_with_75_and_says_preempted(tmp_path, number):
    result = ending(tmp_path, f"os.kill(os.getpid(), {int(number)}); signal.pause()")
    assert result.returncode == ExitCode.RETRY
    assert (
        result.stderr.strip()
        == "error: preempted: stopped before it finished; run the same command again"
    )


def test_a_stop_signal_is_no_exception_that_a_library_could_take_for_a_failure(tmp_path):
    retrying = (
        "\n    while True:\n        try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
    )
    result = ending(tmp_path, f"{retrying}        except Exception: pass")
    assert result.returncode == ExitCode.RETRY
    assert result.stderr.startswith("error: preempted")


STOP = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(
    "statement",
    [
        f"\n    class Lost:\n        def __del__(self): {STOP}\n    Lost()\n    while True: signal.pause()",
        f"\n    try: {STOP}; signal.pause()\n    finally:\n        while True: signal.pause()",
    ],
    ids=["lost", "held up"],
)
def test_a_stop_signal_whose_exception_is_lost_or_held_up_still_ends_the_command(
    tmp_path, statement
):
    result = ending(tmp_path, statement)
    assert result.returncode == ExitCode.RETRY
    assert result.stderr.endswith(
        "error: preempted: stopped before it finished; run the same command again\n"
    )


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


def test_a_second_stop_signal_does_not_disturb_the_end(tmp_path):
    stop = "os.kill(os.getpid(), signal.SIGTERM)"
    statement = (
        f"\n    try:\n        {stop}; signal.pause()\n    finally:\n        {stop}; print('tidied')"
    )
    result = ending(tmp_path, statement)
    assert (result.returncode, result.stdout) == (ExitCode.RETRY, "tidied\n")


EVIL = "a\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\nerror: forged\n"


def test_nothing_in_a_file_reaches_the_terminal_as_a_command_or_a_forged_line(tmp_path):
    (tmp_path / "in").mkdir()
    records = [
        {"id": "role", "turns": [{"role": EVIL, "text": "x"}]},
        {EVIL: "key"},
        {"id": EVIL, "turns": [{"role": "agent", "text": "x"}]},
        {"id": EVIL, "turns": [{"role": "agent", "text": "x"}]},
    ]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "night.yaml").write_text("run: n\ninput: in\noutput: out\nadapter: a\n")
    for table in ("id,dialogue\n", f'"{EVIL[:7]}\nerror: forged",text\n1,2\n'):
        (tmp_path / "in" / "b.csv").write_text(table)
        done = recap("plan", "night.yaml", cwd=tmp_path)
        assert done.returncode
        shown = done.stdout + done.stderr
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
        assert not [
            line for line in shown.splitlines() if line.lstrip().startswith("error: forged")
        ]
        assert "\\x1b[31m" in shown


def test_a_wrong_command_line_is_shown_without_control_characters(tmp_path):
    done = recap("plan", "x\x1b[31m.yaml", "--\x1b[31m", cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert "\x1b" not in done.stderr
    assert "\\x1b[31m" in done.stderr
