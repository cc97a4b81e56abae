"""Bad input gets a clear error with its exit code on the command line, and nothing is written."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.adapters import publish_adapter
from tests.command_line import Ended, Recap

GOOD = {
    "id": "a",
    "turns": [{"role": "customer", "text": "My phone is dead."}],
    "summaries": ["A dead phone."],
}
OTHER = {
    "id": "b",
    "turns": [{"role": "customer", "text": "Where is my parcel?"}],
    "summaries": ["A lost parcel."],
}


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that a plan takes for a base, since it fetches no weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    # A complete file without tensors.
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def train_config(
    tmp_path: Path, base: Path, train: bytes, validation: bytes, name: str = "train.jsonl"
) -> dict[str, Any]:
    (tmp_path / name).write_bytes(train)
    (tmp_path / "validation.jsonl").write_bytes(validation)
    return {
        "run": "r",
        "model": {"base": str(base)},
        "data": {"train": str(tmp_path / name), "validation": str(tmp_path / "validation.jsonl")},
        "output": str(tmp_path / "out"),
    }


Run = Callable[..., Ended]


@pytest.fixture
def run(recap: Recap, tmp_path: Path) -> Run:
    """Run a command with a config."""

    def call(command: str, config: dict[str, Any], *words: str) -> Ended:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return recap(command, path, *words)

    return call


@pytest.fixture
def train(run: Run) -> Run:
    """Train for real, not as a plan: what is asserted of the output must be able to fail."""

    def call(config: dict[str, Any], *words: str) -> Ended:
        return run("train", config, *words)

    return call


BAD = "records are no conversations; mend or remove them:\n  {folder}/train.jsonl"
NONE = (
    "both need at least one; they have no other keys: add a key or a column summary (an empty one "
    "is none)"
)
DATA = {
    "empty file": (
        b"",
        "{folder}/train.jsonl: holds no records; name files that do, or remove it from the input",
    ),
    "broken JSON": (
        jsonl(GOOD) + b'{"id": "x", \n',
        f"1 of 2 {BAD} line 2: not JSON: Expecting property name enclosed in double quotes at "
        "column 12",
    ),
    "no turns": (
        jsonl({"id": "x", "summaries": ["s"]}),
        f"1 of 1 {BAD} line 1: has none of turns, messages, log, dialogue, conversation, "
        "transcript, nor another format's keys; found id, summaries; name the text "
        "(data.columns: {{conversation: …}}) or the list of turns (data.turns: {{list: …}})",
    ),
    "unknown role": (
        jsonl({"id": "x", "turns": [{"role": "bot", "text": "hi"}]}),
        f"1 of 1 {BAD} line 1: role 'bot' is not one of customer, agent, system; map it "
        "(data.roles: {{bot: agent}}), leave its turns out (data.drop_roles: [bot]), or keep all "
        "labels (data.roles: as_written)",
    ),
    "wrong encoding": (
        jsonl(GOOD) + '{"id": "é"}'.encode("latin-1") + b"\n",
        f"1 of 2 {BAD} line 2: byte 0xe9 at character 9 is not UTF-8; save the file as UTF-8",
    ),
    "no reference": (
        jsonl({**GOOD, "summaries": []}),
        f"data: 0 training and 1 validation conversations have a reference summary; {NONE}",
    ),
    "empty references": (
        jsonl({**GOOD, "summaries": ["", "  "]}),
        f"data: 0 training and 1 validation conversations have a reference summary; {NONE}",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_is_65_says_where_and_writes_nothing(train, tmp_path, base, case):
    content, message = DATA[case]
    done = train(train_config(tmp_path, base, content, jsonl(OTHER)))
    assert done.code == 65, done.err
    assert done.err == f"error: {message.format(folder=tmp_path)}\n"
    assert not (tmp_path / "out").exists()


def test_a_table_without_the_column_is_65_and_names_the_columns_it_has(train, tmp_path, base):
    table = b"id,text,summary\n1,customer: hi,greeting\n"
    done = train(train_config(tmp_path, base, table, jsonl(OTHER), "train.csv"))
    assert done.code == 65
    assert done.err == (
        f"error: {tmp_path}/train.csv: no column dialogue or conversation or transcript "
        "(columns id, text, summary); name the one that holds the conversation "
        "(data.columns: {conversation: …}), or leave the file out by data.exclude "
        "(data.format: transcript reads a file of any name as one)\n"
    )
    assert not (tmp_path / "out").exists()


def test_validation_in_train_is_65_unless_the_config_decides(train, tmp_path, base, base_folder):
    config = train_config(tmp_path, base, jsonl(GOOD, OTHER), jsonl({**GOOD, "id": "copy"}))
    done = train(config)
    assert done.code == 65
    assert done.err == (
        "error: data: 1 training conversation is also in validation (a = copy): scores would "
        "flatter; take them out, or set data.overlap: drop (from train) or allow\n"
    )
    config["model"]["base"] = str(base_folder)
    assert train(config, "--dry-run", "--set", "data.overlap=drop").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "data.train=/nowhere/train.jsonl",
            "data.train: /nowhere/train.jsonl: there is no such file, and no files below it",
        ),
        (
            "model.base=/nowhere/base",
            "model.base: '/nowhere/base' is no folder here, and neither a Hub id (org/name) nor an "
            "s3:// prefix",
        ),
    ],
)
def test_inputs_and_bases_that_are_not_there_are_66(train, tmp_path, base, change, message):
    done = train(train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER)), "--set", change)
    assert done.code == 66, done.out
    assert done.err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_refuses_is_77_with_the_permissions_that_are_missing(
    train, tmp_path, base, aws_environment
):
    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        config = train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER)) | {
            "storage": {"endpoint_url": endpoint}
        }
        done = train(config, "--set", "data.train=s3://bucket/train.jsonl")
        server.shutdown()
    assert done.code == 77, done.err
    assert done.err == (
        f"error: data.train: s3://bucket/train.jsonl: {endpoint} answered 403: allow "
        "s3:GetObject and s3:ListBucket to these credentials; without s3:ListBucket an object "
        "that is not there is answered the same\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_key_that_leads_out_of_its_prefix_is_not_read(train, tmp_path, base, s3):
    s3.client().put_object(Bucket=s3.bucket, Key="data/../../x.jsonl", Body=jsonl(GOOD))
    config = train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER))
    done = train(config, "--set", f"data.train={s3.uri}/data/")
    assert done.code == 66, done.err
    assert done.err.splitlines()[-1] == (
        f"error: data.train: {s3.uri}/data/: none of the 1 files below it is read, first "
        f"{s3.uri}/data/../../x.jsonl (its key has a part that is '.' or '..'); "
        "correct data.include and data.exclude, or name the files themselves"
    )
    assert not (tmp_path / "out").exists()


def test_a_base_with_pickled_weights_only_is_66_with_the_remedy(train, tmp_path, base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    done = train(train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER)))
    assert done.code == 66
    assert done.err == (
        f"error: model.base: {base} needs config.json and model.safetensors or "
        "model.safetensors.index.json with its files, found config.json, "
        "pytorch_model.bin, tokenizer.json; convert other weights with "
        "save_pretrained(..., safe_serialization=True)\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        (
            "config.json",
            b"{bad",
            65,
            "/config.json is no JSON (Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)); copy or fetch it again",
        ),
        (
            "model.safetensors",
            b"\x08",
            65,
            "/model.safetensors is no safetensors file, or cut short within its header "
            "(1 bytes); copy or fetch it again",
        ),
        (
            "tokenizer.json",
            None,
            66,
            " has no tokenizer (tokenizer.json or tokenizer.model); put the tokenizer's files "
            "there with tokenizer.save_pretrained(...)",
        ),
    ],
)
def test_a_broken_base_ends_the_run_before_it_is_loaded(
    train, tmp_path, base, name, content, code, message
):
    (base / name).unlink()
    if content:
        (base / name).write_bytes(content)
    done = train(train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER)))
    assert done.code == code
    assert done.err == f"error: model.base: {base}{message}\n"


def test_an_output_below_a_file_is_73(train, tmp_path, base):
    config = train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER))
    (tmp_path / "file").write_text("")
    done = train(config, "--set", f"output={tmp_path / 'file' / 'out'}")
    assert done.code == 73
    assert done.err.startswith(f"error: output: {tmp_path / 'file' / 'out'}/.recap-probe-")
    assert done.err.endswith(
        " cannot be written: something else is in the way (Not a directory): remove it, or choose "
        "another output\n"
    )


def test_a_plan_names_everything_that_is_wrong_at_once(train, tmp_path, base):
    config = train_config(tmp_path, base, b"", jsonl(OTHER))
    done = train(
        config,
        "--dry-run",
        "--set",
        "model.base=/nowhere/base",
        "--set",
        "output=gs://x/y",
    )
    assert done.code == 65, "the first one decides"
    assert f"✗ data        {tmp_path}/train.jsonl: holds no records" in done.out
    assert "✗ base        model.base: '/nowhere/base' is no folder here" in done.out
    assert "✗ output      'gs://x/y': unknown kind of location" in done.out


@pytest.mark.parametrize("command", ["evaluate", "summarize", "plan"])
def test_no_adapter_is_taken_for_another_bases(run, tmp_path, base, base_folder, command):
    adapter = tmp_path / "adapter"
    publish_adapter(base_folder, tmp_path / "made", str(adapter))
    (tmp_path / "in.jsonl").write_bytes(jsonl(GOOD))
    config = {
        "run": "r",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "out"),
        "adapter": str(adapter),
    }
    done = run(command, config | {"model": {"base": str(base)}})
    assert done.code == 64, done.err
    assert f"{adapter} is an adapter for {base_folder} (digest " in done.err
    assert f"), but model.base, {base}, has digest " in done.err
    assert done.err.endswith(": give the base that it was trained on, or train again\n")

    # A night may have stored the list of its input for the next attempt, but nothing for a reader.
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert path.relative_to(tmp_path / "out").parts[0] == "_chunks"
