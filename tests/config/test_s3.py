"""A config on S3, against a real S3 protocol server."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from job.config.load import load_config
from job.errors import MissingError


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="configs")
    yield client
    server.stop()


def test_a_config_on_s3_is_read_and_a_missing_one_is_missing(bucket):
    text = b"run: far\nmodel: {base: org/base}\ndata: {train: t.jsonl}\noutput: runs\n"
    bucket.put_object(Bucket="configs", Key="train.yaml", Body=text)
    assert load_config("train", "s3://configs/train.yaml").run == "far"
    with pytest.raises(MissingError, match=r"s3://configs/tain\.yaml"):
        load_config("train", "s3://configs/tain.yaml")
