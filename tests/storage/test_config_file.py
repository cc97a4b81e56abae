"""Claims about reading the text of a config: from a file, standard input and S3."""

import io
import os
import sys

import pytest

from job.config.document import ConfigText
from job.config.load import load_config
from job.errors import ConfigError, ForbiddenError, MissingError
from job.storage.config_file import read_config
from job.storage.open import open_store

TEXT = "run: small\nmodel: {base: org/base}\ndata: {train: train.jsonl}\noutput: runs\n"


@pytest.fixture
def type_in(monkeypatch):
    """Put bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def test_a_file_is_read_with_its_path_as_name(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT, encoding="utf-8")
    assert read_config(str(path)) == ConfigText(str(path), TEXT)


def test_standard_input_is_read(type_in):
    type_in(TEXT.encode())
    assert read_config("-") == ConfigText("standard input", TEXT)


def test_mistakes_of_standard_input_name_it(type_in):
    type_in(b"run: 'a b'")
    with pytest.raises(ConfigError, match=r"^4 mistakes in standard input\n"):
        load_config("train", read_config("-"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: is empty; wanted keys with values, such as `run: my-run`"),
        (
            b"run: [",
            "standard input line 1 column 7: broken YAML: while parsing a flow node, expected the "
            "node content, but found '<stream end>'",
        ),
        (b"run: \xff", "standard input: byte 5 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_errors_of_standard_input_name_it(type_in, data, message):
    type_in(data)
    with pytest.raises(ConfigError) as caught:
        load_config("train", read_config("-"))
    assert str(caught.value) == message


def test_a_byte_order_mark_is_removed(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_config(str(path)).text == TEXT


def test_text_that_is_not_utf8_is_an_error_with_the_byte(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_bytes("run: café".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_config("c.yaml")
    assert str(caught.value) == "c.yaml: byte 8 is not UTF-8; save the file as UTF-8"


def test_a_missing_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"^d\.yaml: no such file; give a config's path, s3://… or - for standard"
    with pytest.raises(MissingError, match=message):
        read_config("d.yaml")
    with pytest.raises(MissingError, match="is a folder"):
        read_config(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_forbidden(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(ForbiddenError, match="may not be read"):
        read_config(str(path))


def test_an_object_on_s3_is_read_and_a_missing_one_is_missing(s3):
    open_store(s3.uri).write("train.yaml", TEXT.encode())
    assert read_config(f"{s3.uri}/train.yaml").text == TEXT
    with pytest.raises(MissingError, match=r"/tain\.yaml"):
        read_config(f"{s3.uri}/tain.yaml")
