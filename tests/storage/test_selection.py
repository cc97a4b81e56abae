"""Claims about files below a folder: only data is read, and the rest is counted and named."""

import io
import json
import os

import pytest

from job.errors import DataError, MissingError
from job.storage.folders import write_manifest
from job.storage.open import find_inputs, list_inputs, open_store
from job.storage.selection import Selection
from job.telemetry import configure_logging

DATA = b'{"id": "a", "turns": [{"role": "customer", "text": "hi"}]}\n'
OF_A_NIGHT = {"identity": {}, "counts": {}, "state": "finished"}
FOREIGN = [
    "day.csv.metadata", "a.jsonl.crc", ".DS_Store", "Thumbs.db", "desktop.ini", "~$day.xlsx",
    "_SUCCESS", "_committed_4711", "_started_4711", "sub_$folder$", "manifest.json",
    "unload_manifest", "a.jsonl.md5", "SHA256SUMS", "part.inprogress", "a.jsonl~",
    "@eaDir/a.jsonl", "deep/Thumbs.DB", "_temporary/0/a.jsonl",
]  # fmt: skip


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """An empty folder or prefix."""
    return (
        str(tmp_path / "in")
        if request.param == "local"
        else f"{request.getfixturevalue('s3').uri}/in"
    )


@pytest.fixture
def events():
    """A function that returns the log so far."""
    stream = io.StringIO()
    configure_logging(stream, person=False)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def fill(root, *keys, content=DATA):
    store = open_store(root)
    for key in keys:
        store.write(key, content)


def keys_of(inputs):
    return [file.key for file in inputs.files]


def test_files_that_tools_leave_beside_data_are_left_out_and_counted(root):
    fill(root, "a.jsonl", "deep/b.jsonl.gz", *FOREIGN)
    inputs = find_inputs([f"{root}/"])
    assert keys_of(inputs) == ["a.jsonl", "deep/b.jsonl.gz"]
    assert inputs.left_out.count == len(FOREIGN)
    assert f"{root}/day.csv.metadata (no data, by its name)" in inputs.left_out.first
    assert f"{root}/_SUCCESS (its name starts with . or _)" in inputs.left_out.first


@pytest.mark.parametrize(
    "names",
    [
        ["a.jsonl._COPYING_", "a.jsonl.part", "a.jsonl.partial", "a.md5sum", "a.sha256sum"],
        ["README", "README.txt", "deep/Readme.md", "LICENSE", "license.txt"],
        ["night.yaml", "deep/night.yml", "dataset_infos.json"],
    ],
    ids=["copies and sums", "pages", "configs"],
)
def test_files_about_the_data_are_no_data(root, names):
    fill(root, "readme-1.txt", "yaml.jsonl", *names)
    inputs = find_inputs([root])
    assert keys_of(inputs) == ["readme-1.txt", "yaml.jsonl"]
    assert sorted(inputs.left_out.first) == sorted(
        f"{root}/{name} (no data, by its name)" for name in names
    )


def test_a_file_that_is_named_itself_is_always_read(root):
    fill(root, *FOREIGN)
    nothing = Selection(include=("*.jsonl",), exclude=("**",))
    for key in FOREIGN:
        assert len(find_inputs([f"{root}/{key}"], None, nothing).files) == 1, key


def test_patterns_choose_among_the_files_below_each_uri(root):
    fill(root, "x/a.jsonl.gz", "x/a.pdf", "x/tmp/b.jsonl.gz", "y/c.jsonl.gz", "y/day.xlsx")
    chosen = Selection(include=("*.jsonl.gz",), exclude=("tmp/**",))
    inputs = find_inputs([f"{root}/x", f"{root}/y/"], None, chosen)
    assert [file.uri.removeprefix(f"{root}/") for file in inputs.files] == [
        "x/a.jsonl.gz",
        "y/c.jsonl.gz",
    ]
    assert sorted(inputs.left_out.first) == [
        f"{root}/x/a.pdf (not in data.include)",
        f"{root}/x/tmp/b.jsonl.gz (data.exclude)",
        f"{root}/y/day.xlsx (not in data.include)",
    ]


def test_the_error_of_patterns_without_a_match_has_a_file_left_out(root):
    fill(root, "a.json", "b.json")
    with pytest.raises(
        MissingError,
        match=r"none of the 2 files below it is read.*a\.json \(not in data\.include\)",
    ):
        list_inputs([root], None, Selection(include=("*.jsonl",)))


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("marker", ["dt=1", "dt=1/", "dt=1_$folder$"])
def test_a_marker_never_hides_the_folder_that_it_marks(s3, marker, slash):
    s3.client().put_object(Bucket=s3.bucket, Key=f"mk/{marker}", Body=b"")
    fill(f"{s3.uri}/mk", "dt=1/a.jsonl")
    assert [file.uri for file in list_inputs([f"{s3.uri}/mk/dt=1{slash}"])] == [
        f"{s3.uri}/mk/dt=1/a.jsonl"
    ]
    assert [file.key for file in list_inputs([f"{s3.uri}/mk"])] == ["dt=1/a.jsonl"]


def test_markers_of_folders_below_one_another_are_no_data(s3):
    fill(s3.uri, "mk", "mk/dt=1", "mk/dt=1/hour=2", content=b"")
    fill(s3.uri, "mk/dt=1-x", "mk/dt=1/hour=2/a.jsonl")
    inputs = find_inputs([f"{s3.uri}/mk"])
    assert keys_of(inputs) == ["dt=1-x", "dt=1/hour=2/a.jsonl"]
    assert inputs.left_out.count == 2


def test_a_marker_of_a_folder_without_data_is_no_file_either(s3):
    fill(s3.uri, "mk", "mk/_SUCCESS", content=b"")
    assert list(find_inputs([f"{s3.uri}/mk"]).missing) == [f"{s3.uri}/mk"]


def test_an_empty_file_with_nothing_below_it_is_a_file(root):
    fill(root, "a.jsonl", content=b"")
    assert [file.size for file in list_inputs([f"{root}/a.jsonl"])] == [0]
    assert keys_of(find_inputs([f"{root}/"])) == ["a.jsonl"]


def test_a_file_with_content_wins_over_a_prefix_of_its_name(s3):
    fill(s3.uri, "a.jsonl", "a.jsonl/b")
    assert [file.uri for file in list_inputs([f"{s3.uri}/a.jsonl"])] == [f"{s3.uri}/a.jsonl"]


@pytest.mark.parametrize("odd", ["/a.jsonl", "sub//a.jsonl", "back\\slash.jsonl", "x/../a.jsonl"])
def test_a_key_that_is_no_path_does_not_end_the_night(s3, odd):
    s3.client().put_object(Bucket=s3.bucket, Key=f"in/{odd}", Body=DATA)
    fill(f"{s3.uri}/in", "good.jsonl")
    inputs = find_inputs([f"{s3.uri}/in/"])
    assert keys_of(inputs) == ["good.jsonl"]
    assert inputs.left_out.odd_count == 1
    assert inputs.left_out.odd[0].startswith(f"{s3.uri}/in/{odd} (its key ")
    excluded = find_inputs(
        [f"{s3.uri}/in/"], None, Selection(exclude=("**/*slash.jsonl", "**/a.jsonl", "/a.jsonl"))
    )
    assert (excluded.left_out.count, excluded.left_out.odd) == (1, [])


def test_a_key_that_is_no_path_does_not_hide_a_missing_input(s3):
    s3.client().put_object(Bucket=s3.bucket, Key="in//a.jsonl", Body=DATA)
    fill(f"{s3.uri}/in", "good.jsonl")
    with pytest.raises(MissingError, match=r"gone/: there is no such file.*has in"):
        list_inputs([f"{s3.uri}/gone/"])


@pytest.mark.parametrize("odd", ["a\x1bb.jsonl", "a\nb.jsonl", "c\td.jsonl"])
def test_a_name_with_control_characters_is_left_out_and_shown_escaped(tmp_path, odd):
    (tmp_path / odd).write_bytes(DATA)
    (tmp_path / "good.jsonl").write_bytes(DATA)
    inputs = find_inputs([f"{tmp_path}/"])
    assert keys_of(inputs) == ["good.jsonl"]
    (shown,) = inputs.left_out.odd
    assert shown.isprintable()
    assert "(its key has a control character" in shown


def test_a_name_that_is_not_utf8_is_left_out_and_can_be_encoded(tmp_path):
    (tmp_path / "in").mkdir()
    for name in (b"bad\xff.jsonl", b"good.jsonl"):
        with open(os.path.join(os.fsencode(tmp_path / "in"), name), "wb") as file:
            file.write(DATA)
    inputs = find_inputs([f"{tmp_path}/in"])
    assert keys_of(inputs) == ["good.jsonl"]
    assert inputs.left_out.odd == [rf"{tmp_path}/in/bad\udcff.jsonl (its key is not valid UTF-8)"]


def test_a_link_to_a_folder_can_be_excluded_as_the_message_says(tmp_path):
    fill(str(tmp_path / "in"), "deep/good.jsonl")
    (tmp_path / "in" / "deep" / "latest").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"latest: is a link to .*data\.exclude: 'deep/latest'"):
        list_inputs([f"{tmp_path}/in"])
    chosen = Selection(exclude=("deep/latest",))
    assert keys_of(find_inputs([f"{tmp_path}/in"], None, chosen)) == ["deep/good.jsonl"]


@pytest.mark.parametrize(
    ("log", "table"),
    [
        ("_delta_log/00000000000000000000.json", ""),
        ("calls/_delta_log/0001.checkpoint.parquet", "/calls"),
        ("calls/.hoodie/hoodie.properties", "/calls"),
        ("calls/metadata/v1.metadata.json", "/calls"),
        ("calls/metadata/snap-4711-1-af.avro", "/calls"),
    ],
)
def test_a_table_with_a_log_of_its_own_is_a_warning(root, events, log, table):
    fill(root, "calls/part-0.jsonl", log)
    assert [file.key for file in list_inputs([root])] == ["calls/part-0.jsonl"]
    (warned,) = [each for each in events() if "table" in each["message"]]
    assert warned["level"] == "warning"
    assert "deleted rows and rows twice" in warned["message"]
    assert warned["tables"] == [f"{root}{table}"]


def test_a_folder_called_metadata_is_data_like_any_other(root, events):
    fill(root, "metadata/a.jsonl", "metadata.json")
    assert [file.key for file in list_inputs([root])] == ["metadata.json", "metadata/a.jsonl"]
    assert events() == []


def test_the_error_of_a_pattern_as_a_name_names_data_include(root):
    fill(root, "a.jsonl")
    with pytest.raises(MissingError, match=r"a pattern is no name.*data\.include"):
        list_inputs([f"{root}/*.jsonl"])


def test_an_earlier_output_of_recap_below_the_input_is_no_data(root, tmp_path):
    night = tmp_path / "night"
    for name in ("parts/part-00000.jsonl", "rejects/part-00000.jsonl"):
        open_store(str(night)).write(name, DATA)
    manifest = write_manifest(night, OF_A_NIGHT).to_json()
    day = tmp_path / "day"
    for name in ("day.csv", "day.rejects.jsonl"):
        open_store(str(day)).write(name, DATA)
    of_day = write_manifest(day, OF_A_NIGHT).to_json()
    store = open_store(root)
    fill(
        root,
        "a.jsonl",
        "old/parts/part-00000.jsonl",
        "old/rejects/part-00000.jsonl",
        "old/parts/mine.jsonl",
    )
    fill(root, "one/day.csv", "one/day.rejects.jsonl", "one/day2.csv")
    store.write("old/manifest.json", manifest)
    store.write("one/day.manifest.json", of_day)
    inputs = find_inputs([f"{root}/"])
    assert keys_of(inputs) == ["a.jsonl", "old/parts/mine.jsonl", "one/day2.csv"]
    assert inputs.left_out.count == 6
    assert keys_of(find_inputs([f"{root}/old/parts/"])) == ["mine.jsonl", "part-00000.jsonl"], (
        "named itself"
    )
    own = find_inputs([f"{root}/old"], own_outputs=True)
    assert keys_of(own) == [
        "parts/mine.jsonl",
        "parts/part-00000.jsonl",
        "rejects/part-00000.jsonl",
    ]


def test_data_that_recap_published_is_data(root, tmp_path):
    open_store(str(tmp_path / "made")).write("a.jsonl", DATA)
    manifest = write_manifest(tmp_path / "made", {"kind": "conversations"}).to_json()
    fill(root, "a.jsonl")
    open_store(root).write("manifest.json", manifest)
    assert keys_of(find_inputs([f"{root}/"])) == ["a.jsonl"]


@pytest.mark.parametrize(
    "text", [b"{}", b"[1]", b"not json", b'{"files": {"a.jsonl": {}}, "extra": {}}', b"\xff"]
)
def test_a_manifest_of_another_program_hides_no_data(root, text):
    fill(root, "a.jsonl")
    open_store(root).write("manifest.json", text)
    assert keys_of(find_inputs([f"{root}/"])) == ["a.jsonl"]


def test_the_front_page_of_a_data_set_is_named_among_what_is_left_out(hub):
    hub.add("org/data", {"README.md": b"# data", "train.jsonl": DATA}, kind="datasets")
    inputs = find_inputs(["hf://datasets/org/data"])
    assert keys_of(inputs) == ["train.jsonl"]
    assert inputs.left_out.first == ["hf://datasets/org/data/README.md (no data, by its name)"]
