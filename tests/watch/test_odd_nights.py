"""Claims about odd nights: each is compared or named, and none of them alarms or ends a watch."""

import json
import shutil
from dataclasses import replace

import pytest

from job.cli import run
from job.config.sections import StorageSection
from job.errors import ExitCode
from job.storage.folders import Manifest
from job.summarization.quality import FAITHFULNESS, FIGURES
from job.watch import nights as nights_module
from job.watch.causes import Change, attribute
from job.watch.measured import Measured
from job.watch.nights import read_nights
from job.watch.page import page
from job.watch.screen import screen
from job.watch.watch import judge_nights
from tests.watch.conftest import night_of
from tests.watch.manifests import config_of, manifest_of, write_nights
from tests.watch.streams import Habits, Plant, Team, day

STORAGE = StorageSection()
BY_NAME = {figure.name: figure for figure in FIGURES}


def watched(folder, **keys):
    """Judge the nights of a folder, and return the verdict with screen and page."""
    config = config_of(folder, **keys)
    verdict = judge_nights(config)
    return verdict, screen(verdict), page(config, verdict)


def test_nights_of_one_record_do_not_alarm(real, tmp_path):
    nights = Team(4, Habits(records=(1, 1))).nights(60)
    write_nights(tmp_path / "nights", real[1], nights)
    verdict, text, html = watched(tmp_path)
    assert verdict.alarms == []
    assert "60 nights from" in text
    assert "60 nights from" in html


def test_one_night_alone_is_no_change(real, tmp_path):
    write_nights(tmp_path / "nights", real[1], Team(4).nights(1))
    verdict, text, html = watched(tmp_path)
    assert verdict.alarms == []
    assert "1 night from" in text
    assert "1 night from" in html


def test_a_real_night_without_records_is_said_to_be_one(real, tmp_path, places):
    shutil.copytree(real[0].parent / "base", tmp_path / "base")
    shutil.copytree(real[0], tmp_path / "nights")
    (tmp_path / "none.jsonl").write_text("")
    night_of(tmp_path, "2026-01-02", tmp_path / "none.jsonl", limits={"min_records": 0})
    verdict, text, html = watched(tmp_path)
    assert [night.records for night in verdict.nights] == [20, 0]
    assert "The last night has no records." in text
    assert "The last night has no records." in html
    (row,) = [line for line in text.splitlines() if line.startswith("Turns of a conversation")]
    assert len(row.split()[4:]) == 1, "evidence, and no figure of the night before in its place"


def test_a_missing_night_is_counted(real, tmp_path):
    nights = Team(4).nights(30)
    write_nights(tmp_path / "nights", real[1], nights[:17] + nights[18:])
    verdict, text, html = watched(tmp_path)
    assert verdict.alarms == []
    for shown in (text, html):
        assert "29 nights from 2026-01-01 to 2026-01-30 (1 day without one)" in shown


def test_a_night_that_is_left_out_is_not_missing(real, tmp_path):
    nights = Team(4).nights(30)
    write_nights(tmp_path / "nights", real[1], nights[:17] + nights[18:])
    # The last day has no night, and the first one that is compared is later.
    texts = watched(tmp_path, leave_out=[day(0), day(3), day(17), day(40)])[1:]
    for shown in texts:
        assert "27 nights from 2026-01-02 to 2026-01-30 (1 day without one, 1 night left" in shown


def test_a_night_that_is_written_anew_counts_as_it_is_now(real, tmp_path):
    nights = Team(5).nights(90, Plant("characters", 0.85, at=56))
    folder = write_nights(tmp_path / "nights", real[1], nights)
    assert [one.figure.name for one in watched(tmp_path)[0].alarms] == ["characters"]
    write_nights(folder, real[1], Team(5).nights(90)[56:])
    assert watched(tmp_path)[0].alarms == []


def test_of_two_nights_a_day_the_one_that_does_not_count_is_named(real, tmp_path, capsys):
    nights = Team(4).nights(10)
    write_nights(tmp_path / "nights" / "chat", real[1], nights)
    write_nights(tmp_path / "nights" / "mail", real[1], nights[:2])
    found = read_nights(str(tmp_path / "nights"), STORAGE)
    assert [night.uri.split("/")[-3] for night in found.nights] == ["mail"] * 2 + ["chat"] * 8
    others = [night.uri.replace("mail", "chat") for night in found.nights[:2]]
    assert found.of_the_same_day == others
    assert run(["watch", config_file(tmp_path)]) == ExitCode.DONE
    assert "only the last by name counts" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "another version", "no object", "empty"])
def test_a_night_without_figures_is_named_and_the_others_compared(real, tmp_path, damage, capsys):
    folder = write_nights(tmp_path / "nights", real[1], Team(4).nights(5))
    manifest = folder / f"dt={day(2)}" / "manifest.json"
    content = manifest.read_bytes()
    old = {key: value for key, value in real[1].extra.items() if key != "quality"}
    manifest.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "another version": Manifest(real[1].files, old).to_json(),
            "no object": b"[]",
            "empty": b"",
        }[damage]
    )
    assert run(["watch", config_file(tmp_path)]) == ExitCode.DONE
    found = capsys.readouterr()
    assert "4 nights from 2026-01-01 to 2026-01-05 (1 day without one)" in found.out
    assert f"dt={day(2)}" in found.err


def test_a_night_of_two_engines_is_another_state_and_no_alarm(real, tmp_path):
    folder = tmp_path / "nights"
    for number, night in enumerate(Team(4).nights(40)):
        engines = {"vllm": 1} if number != 20 else {"vllm": 1, "transformers": 1}
        path = folder / f"dt={night.day}" / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(manifest_of(real[1], night, engines=engines).to_json())
    verdict = watched(tmp_path)[0]
    assert verdict.alarms == []
    states = [night.serving for night in verdict.nights]
    assert len(set(states)) == 2
    assert states.count(states[20]) == 1


def test_nights_in_s3_are_those_of_a_folder(real, tmp_path, s3):
    folder = write_nights(tmp_path / "nights", real[1], Team(4).nights(20))
    client = s3.client()
    for path in folder.rglob("manifest.json"):
        key = f"nights/{path.relative_to(folder)}"
        client.put_object(Bucket=s3.bucket, Key=key, Body=path.read_bytes())
    found = read_nights(f"{s3.uri}/nights", STORAGE).nights
    here = read_nights(str(folder), STORAGE).nights
    assert [replace(one, uri="") for one in found] == [replace(one, uri="") for one in here]


def test_the_order_is_that_of_dates_whenever_a_night_was_written(real, tmp_path):
    nights = Team(4).nights(20)
    write_nights(tmp_path / "nights", real[1], nights[::-1])
    assert [night.day for night in watched(tmp_path)[0].nights] == [day(n) for n in range(20)]


def test_a_canary_is_another_writer_of_figures_of_all_lines_alone(real, tmp_path):
    team = Team(4)
    figures = {FAITHFULNESS: 0.8, "characters": 180.0}
    nights = []
    for night in team.nights(20):
        measured = {name: Measured(200, mean, 0.1) for name, mean in figures.items()}
        begun = night.day >= day(10)
        nights.append(replace(night, figures=measured, canary="b 0.1" if begun else ""))
    change = Change(day(10), -0.1)
    of_all = attribute(BY_NAME[FAITHFULNESS], change, nights, [])
    assert "weights, settings or engine changed" in of_all.why
    own = attribute(BY_NAME["characters"], change, nights, [])
    assert "weights, settings or engine changed" not in own.why


def test_a_manifest_of_a_canary_says_which_one_wrote_how_many(real):
    night = Team(4).nights(1)[0]
    found = []
    for mode, share in (("canary", 0.1), ("canary", 0.2), ("shadow", 0.1)):
        block = {"digest": "c", "mode": mode, "figures": {}, "beside": {"figures": {}}}
        manifest = manifest_of(real[1], night, challenger=block)
        manifest.extra["identity"]["challenger"] = {"digest": "c", mode: share, "seed": 0}
        read = type(night).from_manifest(night.day, "", manifest)
        assert read is not None
        found.append(read.canary)
    assert len({*found[:2], ""}) == 3
    assert found[2] == ""


def test_anchors_that_are_not_there_end_with_66_once_all_is_compared(real, tmp_path, capsys):
    write_nights(tmp_path / "nights", real[1], Team(4).nights(5))
    typo = ["--set", f"anchors={tmp_path}/anchers"]
    assert run(["watch", config_file(tmp_path), "--json", *typo]) == ExitCode.MISSING
    found = capsys.readouterr()
    assert json.loads(found.out)["nights"] == 5
    assert f"anchors: no night with figures is below {tmp_path}/anchers" in found.err
    changed = Team(5).nights(90, Plant("characters", 0.85, at=56))
    write_nights(tmp_path / "nights", real[1], changed)
    assert run(["watch", config_file(tmp_path), *typo]) == ExitCode.GATE, "an alarm comes first"


def test_anchors_after_the_nights_in_question_are_there(real, tmp_path, capsys):
    write_nights(tmp_path / "nights", real[1], Team(4).nights(9))
    write_nights(tmp_path / "anchors", real[1], Team(4).nights(9)[5:])
    keys = ["--set", f"anchors={tmp_path}/anchors", "--set", f"until={day(4)}"]
    assert run(["watch", config_file(tmp_path), *keys]) == ExitCode.DONE
    assert "5 nights from 2026-01-01 to 2026-01-05, 0 anchors" in capsys.readouterr().out


def test_an_expected_night_that_is_replaced_meanwhile_ends_with_75(
    real, tmp_path, capsys, monkeypatch
):
    write_nights(tmp_path / "nights", real[1], Team(4).nights(5))
    read = nights_module.read_manifest_file

    def read_late(store, key):
        if str(day(4)) in key:
            (tmp_path / "nights" / key).unlink()
        return read(store, key)

    monkeypatch.setattr(nights_module, "read_manifest_file", read_late)
    keys = ["--set", f"expected={day(4)}"]
    assert run(["watch", config_file(tmp_path), *keys]) == ExitCode.RETRY
    found = capsys.readouterr().err
    assert "nights that are being written anew do not count" in found
    assert f"the night of {day(4)} below {tmp_path}/nights is being written anew" in found


def config_file(folder):
    path = folder / "watch.yaml"
    path.write_text(f"run: watch\nnights: {folder}/nights\n", encoding="utf-8")
    return str(path)
