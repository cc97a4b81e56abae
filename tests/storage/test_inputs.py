"""Claims about the files that the URIs of an input name."""

import os

import pytest

from job.errors import ConfigError, ExitCode, ForbiddenError, MissingError
from job.storage.keys import split_file
from job.storage.open import find_inputs, list_inputs, open_store, read_uri
from tests.storage.services import answering


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path, monkeypatch):
    """A folder or a prefix with a few files, as a URI."""
    if request.param == "local":
        monkeypatch.chdir(tmp_path)
        uri = str(tmp_path)
    else:
        uri = request.getfixturevalue("s3").uri
    store = open_store(uri)
    for key in ("day/b.jsonl", "day/a.jsonl", "day/deep/c.jsonl", "day2/d.jsonl", "single.jsonl"):
        store.write(key, key.encode())
    for key in ("day/_SUCCESS", "day/.hidden", "day/_temporary/e.jsonl", "day/deep/.part/f.jsonl"):
        store.write(key, b"not data")
    return uri


def names(root, uris):
    return [file.uri.removeprefix(f"{root}/") for file in list_inputs(uris)]


def test_a_prefix_is_all_files_below_it_in_order(root):
    assert names(root, [f"{root}/single.jsonl"]) == ["single.jsonl"]
    wanted = ["day/a.jsonl", "day/b.jsonl", "day/deep/c.jsonl"]
    assert names(root, [f"{root}/day"]) == names(root, [f"{root}/day/"]) == wanted
    assert names(root, [f"{root}/single.jsonl", f"{root}/day2/"]) == [
        "single.jsonl",
        "day2/d.jsonl",
    ]


def test_an_input_file_can_be_read(root):
    (file,) = list_inputs([f"{root}/day/a.jsonl"])
    with file.open() as stream:
        assert stream.read() == b"day/a.jsonl"
    with file.store.open(file.key) as stream:
        assert len(stream.read()) == file.size
    assert file.version == open_store(root).stat("day/a.jsonl").version
    assert read_uri(f"{root}/day/a.jsonl") == b"day/a.jsonl"


def test_a_file_named_twice_is_one_input(root):
    uris = [f"{root}/day/a.jsonl", f"{root}/day/", f"{root}/day"]
    assert names(root, uris) == ["day/a.jsonl", "day/b.jsonl", "day/deep/c.jsonl"]


def test_a_missing_name_is_an_error_with_the_nearest_names(root):
    with pytest.raises(
        MissingError, match=r"/singel\.jsonl: there is no such file.* has single\.jsonl"
    ) as caught:
        list_inputs([f"{root}/singel.jsonl"])
    assert caught.value.exit_code == ExitCode.MISSING
    with pytest.raises(MissingError, match=r"has day, day2, single\.jsonl"):
        list_inputs([f"{root}/zzzzzzzzz/"])


def test_the_error_has_the_one_uri_that_names_no_file(root):
    inputs = find_inputs([f"{root}/nothing/", f"{root}/day2"])
    assert [file.key for file in inputs.files] == ["d.jsonl"]
    assert list(inputs.missing) == [f"{root}/nothing/"]
    with pytest.raises(MissingError, match="/nothing/: there is no such file"):
        list_inputs([f"{root}/day2", f"{root}/nothing/"])


def test_the_error_of_a_prefix_without_data_lists_its_files(root):
    open_store(root).write("only/_SUCCESS", b"")
    with pytest.raises(
        MissingError, match=r"only/: none of the 1 files below it is read, first .*/only/_SUCCESS"
    ):
        list_inputs([f"{root}/only/"])


def test_relative_paths_and_file_uris_are_paths(root, tmp_path):
    if root.startswith("s3://"):
        pytest.skip("only paths are relative")
    assert [file.uri for file in list_inputs(["single.jsonl", "day2"])] == [
        "single.jsonl",
        "day2/d.jsonl",
    ]
    assert (
        read_uri("single.jsonl") == read_uri(f"file://{tmp_path}/single.jsonl") == b"single.jsonl"
    )


def test_a_whole_bucket_is_an_input(root):
    assert len(list_inputs([root])) == len(list_inputs([f"{root}/"])) == 5


def test_a_refusal_is_never_taken_for_an_empty_input(serve, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", serve(answering(403, "AccessDenied")))
    for uri in ("s3://bucket/day/", "s3://bucket/day", "s3://bucket"):
        with pytest.raises(ForbiddenError, match="s3:ListBucket"):
            find_inputs([uri])


def test_a_file_that_may_be_listed_but_not_read_is_forbidden(serve, aws_environment):
    def refuse_objects(request):
        listing = (
            b"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>"
            b"</ListBucketResult>"
        )
        status, body = (200, listing) if "list-type" in request.path else (403, b"")
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    aws_environment.setenv("AWS_ENDPOINT_URL", serve(refuse_objects))
    with pytest.raises(ForbiddenError, match="s3:GetObject"):
        find_inputs(["s3://bucket/day.jsonl"])


@pytest.mark.parametrize(
    ("uri", "folder", "key"),
    [
        ("a.jsonl", ".", "a.jsonl"),
        ("/a.jsonl", "/", "a.jsonl"),
        ("../b/a.jsonl", "../b", "a.jsonl"),
        ("s3://bucket/a", "s3://bucket", "a"),
        ("s3://bucket/b/c d/a?#.jsonl", "s3://bucket/b/c d", "a?#.jsonl"),
        ("hf://org/name/a", "hf://org/name", "a"),
        ("hf://datasets/org/name@v1.0/b/a", "hf://datasets/org/name@v1.0/b", "a"),
    ],
)
def test_a_file_uri_is_split_into_its_folder_and_its_name(uri, folder, key):
    assert split_file(uri) == (folder, key)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://bucket//a",
        "s3://bucket/a/../b",
        "s3:/bucket/a",
        "gs://bucket/a",
        "hf://name",
        "S3://b/a",
    ],
)
def test_an_unknown_scheme_is_a_mistake_of_the_config(uri):
    with pytest.raises(ConfigError, match=r"wanted (a path, )?(s3|hf)://"):
        open_store(uri)


@pytest.mark.parametrize(
    "uri", ["s3://bucket", "s3://bucket/a/", "folder/", "hf://org/name", "..", ""]
)
def test_a_uri_of_a_folder_is_no_file(uri):
    with pytest.raises(ConfigError, match="wanted a file"):
        read_uri(uri)


def test_a_pipe_or_an_empty_folder_is_named_in_the_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, said in (("pipe", "is no regular file"), ("empty", "is a folder without files")):
        with pytest.raises(MissingError, match=f"{name}: {said}") as caught:
            list_inputs([f"{tmp_path}/{name}"])
        assert caught.value.exit_code == ExitCode.MISSING
        assert "no such file" not in str(caught.value)
