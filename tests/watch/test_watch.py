"""Claims about the command: real nights are read, a change ends with 76, and the page shows it."""

import json
import shutil
from dataclasses import replace
from datetime import date

import pytest

from job.cli import run
from job.config.load import ConfigText, load_config
from job.errors import AlarmError, ConfigError, ExitCode, MissingError, RetryError
from job.storage.folders import Manifest
from job.summarization.quality import FIGURES, OTHER_LANGUAGE
from job.watch.nights import is_there, read_nights
from job.watch.page import page
from job.watch.watch import judge_nights, raise_alarm, report, wait_for_expected
from tests.watch.manifests import config_of, write_nights
from tests.watch.streams import Plant, Team, day


@pytest.fixture(scope="module")
def changed(real, tmp_path_factory):
    """Nights whose summaries became shorter by a new model on the 57th, with anchors."""
    folder = tmp_path_factory.mktemp("changed")
    team, plant = Team(5), Plant("characters", 0.85, at=56, cause="model")
    write_nights(folder / "nights", real[1], team.nights(90, plant))
    write_nights(folder / "anchors", real[1], team.anchors(90, plant))
    return folder


def command_line(folder, *more):
    path = folder / "watch.yaml"
    path.write_text(
        f"run: watch\nnights: {folder}/nights\nanchors: {folder}/anchors\n", encoding="utf-8"
    )
    return run(["watch", str(path), *more])


def test_a_real_night_is_read_with_all_its_figures(real):
    found = read_nights(str(real[0]), config_of(real[0]).storage)
    (night,) = found.nights
    assert (night.day, night.records) == (date(2026, 1, 1), 20)
    assert night.figures["turns"].mean == 1
    assert night.figures["characters"].records == 20


def test_a_change_ends_with_76_and_names_figure_and_cause(changed, capsys):
    assert command_line(changed) == ExitCode.GATE
    found = capsys.readouterr()
    assert "ALARM since" in found.out
    assert "Characters of a summary (model)" in found.err


def test_nights_until_the_change_end_with_0(changed, capsys):
    assert command_line(changed, "--set", f"until={day(55)}") == ExitCode.DONE
    assert "ALARM" not in capsys.readouterr().out


def test_the_expected_night_is_waited_for(changed, tmp_path):
    (tmp_path / "nights").mkdir()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            name = f"nights/dt={day(1)}"
            shutil.copytree(changed / name, tmp_path / name)

    config = config_of(tmp_path, expected=day(1), wait_minutes=5)
    wait_for_expected(config, sleep)
    assert waited == [60, 60]
    assert judge_nights(config).nights[-1].day == day(1)


def test_an_expected_night_that_never_comes_ends_with_75(changed, capsys):
    missing = "--set", f"expected={day(90)}"
    assert command_line(changed, *missing) == ExitCode.RETRY
    assert f"expected: no night of {day(90)} is below {changed}/nights" in capsys.readouterr().err
    assert command_line(changed, "--set", f"expected={day(89)}") == ExitCode.GATE


def test_an_expected_night_that_is_damaged_ends_with_65(changed, tmp_path, capsys):
    for number in (1, 2, 3):
        name = f"nights/dt={day(number)}"
        shutil.copytree(changed / name, tmp_path / name)
    (tmp_path / name / "manifest.json").write_text("{broken", encoding="utf-8")
    path = tmp_path / "watch.yaml"
    path.write_text(f"run: watch\nnights: {tmp_path}/nights\nexpected: {day(3)}\n", "utf-8")
    assert run(["watch", str(path)]) == ExitCode.DATA
    assert f"the night of {day(3)}" in capsys.readouterr().err
    assert run(["watch", str(path), "--set", f"leave_out=[{day(3)}]"]) == ExitCode.DONE
    assert run(["watch", str(path), "--set", f"expected={day(2)}"]) == ExitCode.DONE


def test_an_anchor_is_not_the_expected_night(changed, tmp_path):
    config = config_of(changed, nights=str(changed), anchors=f"{changed}/anchors")
    assert is_there(day(3), config.nights, config.storage, config.anchors)
    shutil.copytree(f"{changed}/anchors", tmp_path / "anchors")
    anchors = {"nights": str(tmp_path), "anchors": f"{tmp_path}/anchors"}
    only = config_of(changed, **anchors, expected=day(3), wait_minutes=2)
    waited = []
    with pytest.raises(RetryError, match="after 2 minutes"):
        wait_for_expected(only, waited.append)
    assert waited == [60, 60]


@pytest.mark.parametrize("anchors", ["s3://b/nights", "s3://b/nights/", "s3://b"])
def test_anchors_that_are_the_nights_are_a_mistake(anchors):
    text = f"run: w\nnights: s3://b/nights\nanchors: {anchors}\n"
    with pytest.raises(ConfigError, match=r"anchors  s3://b.* has all nights"):
        load_config("watch", ConfigText("watch.yaml", text))


def test_a_settled_change_ends_with_0(changed, capsys):
    assert command_line(changed, "--set", f"since={day(56)}") == ExitCode.DONE
    assert "34 nights" in capsys.readouterr().out


def test_programs_read_figures_nights_and_causes(changed, capsys):
    assert command_line(changed, "--json") == ExitCode.GATE
    found = json.loads(capsys.readouterr().out)
    length = found["figures"]["characters"]
    assert (found["alarm"], found["nights"], length["cause"]) == (True, 90, "model")
    assert len(length["nights"]) == 90
    assert found["figures"]["turns"]["alarmed"] is None


def test_the_page_shows_each_figure_and_the_alarm(changed, tmp_path):
    assert command_line(changed, "--plot", str(tmp_path / "nights.html")) == ExitCode.GATE
    text = (tmp_path / "nights.html").read_text(encoding="utf-8")
    assert "90 nights from 2026-01-01 to 2026-03-31: changed: Characters of a summary" in text
    assert text.count('class="chart"') == 2 * len(FIGURES)
    assert "cause: model" in text


def test_a_page_that_cannot_be_written_hides_no_alarm(changed, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command_line(changed, "--plot", f"{tmp_path}/file/nights.html") == ExitCode.OUTPUT
    assert "nights changed" in capsys.readouterr().err
    never = ("--plot", "nights.txt", "--set", f"expected={day(95)}")
    assert command_line(changed, *never) == ExitCode.CONFIG, "before it waits"


def test_a_night_of_the_future_is_warned_of(changed, tmp_path, capsys):
    for number, name in enumerate(("2026-01-01", "2062-01-01")):
        shutil.copytree(changed / f"nights/dt={day(number)}", tmp_path / f"nights/dt={name}")
    shutil.copytree(changed / "anchors", tmp_path / "anchors")
    assert command_line(tmp_path) == ExitCode.DONE
    found = capsys.readouterr()
    assert "the last night is of the future" in found.err
    assert "With fewer than 28 nights" in found.out


def test_the_page_escapes_the_name_of_a_run(changed):
    config = config_of(changed)
    named = config.model_copy(update={"run": "<script>x</script>"})
    assert "<script>x" not in page(named, judge_nights(config))


def test_the_log_has_a_line_for_each_alarm_and_the_metric(changed, caplog, monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("recap"), "propagate", True)
    caplog.set_level(logging.INFO, "recap")
    config = config_of(changed)
    verdict = judge_nights(config)
    report(config, verdict)
    with pytest.raises(AlarmError, match="set `since`"):
        raise_alarm(config, verdict)
    fields = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert {"figure": "characters", "cause": "unknown"}.items() <= fields[0].items()
    assert fields[-1]["WatchAlarms"] == 1


def test_nights_that_are_left_out_do_not_count(changed):
    left_out = [day(number) for number in range(56, 90)]
    assert judge_nights(config_of(changed, leave_out=left_out)).alarms == []


def test_other_folders_and_old_nights_are_no_nights(changed, real, tmp_path):
    folder = write_nights(tmp_path / "nights", real[1], Team(1).nights(2))
    old = Manifest({}, {"counts": real[1].extra["counts"]})
    for name in ("dt=2025-12-31", "no-date"):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_bytes(old.to_json())
    (folder / "dt=2025-12-30").mkdir()
    (folder / "dt=2025-12-30" / "manifest.json").write_text("{")
    found = read_nights(str(folder), config_of(tmp_path).storage)
    assert (len(found.nights), len(found.without_figures)) == (2, 2)


def test_a_new_language_alarms_for_the_share_of_others(real, tmp_path):
    nights = []
    for night in Team(7).nights(100):
        # From the 71st night on, a quarter of the conversations is in Spanish.
        spanish = 50 if night.day >= day(70) else 0
        languages = {"en": 150, "es": spanish, "unknown": 3}
        figures = {name: one for name, one in night.figures.items() if name != OTHER_LANGUAGE}
        nights.append(replace(night, figures=figures, languages=languages))
    folder = write_nights(tmp_path / "nights", real[1], nights)
    (alarm,) = judge_nights(config_of(tmp_path, nights=str(folder))).alarms
    assert (alarm.figure.name, alarm.change.since) == (OTHER_LANGUAGE, day(70))
    assert len(alarm.observations) == 99  # the first night has chosen the language
    assert alarm.observations[0].mean == pytest.approx(3 / 153)


def test_a_prefix_without_nights_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no night with figures"):
        judge_nights(config_of(tmp_path))


def test_anchors_below_the_nights_are_no_nights(real, tmp_path):
    folder = write_nights(tmp_path / "nights", real[1], Team(1).nights(5))
    write_nights(folder / "anchors", real[1], Team(1).anchors(5))
    verdict = judge_nights(config_of(tmp_path, anchors=str(folder / "anchors")))
    assert (len(verdict.nights), len(verdict.anchors)) == (5, 1)


@pytest.mark.parametrize(
    "keys",
    [{"since": "2027-01-01"}, {"until": "2025-01-01"}, {"leave_out": [day(0), day(1)]}],
    ids=["since", "until", "leave_out"],
)
def test_nights_that_do_not_count_are_not_called_missing(real, tmp_path, keys):
    write_nights(tmp_path / "nights", real[1], Team(1).nights(2))
    wanted = f"2 nights are below .*, from {day(0)} to {day(1)}, and none counts; correct since"
    with pytest.raises(MissingError, match=wanted):
        judge_nights(config_of(tmp_path, **keys))


def test_a_night_itself_is_no_folder_of_nights(real, tmp_path):
    folder = write_nights(tmp_path / "nights", real[1], Team(1).nights(1))
    night = f"{folder}/dt={day(0)}/"
    with pytest.raises(MissingError, match=f"below {night}; its own name has a date.* above"):
        judge_nights(config_of(tmp_path, nights=night))


def test_until_before_since_is_a_mistake():
    text = "run: w\nnights: s3://b/nights\nsince: 2026-02-01\nuntil: 2026-01-31\n"
    with pytest.raises(ConfigError, match=r"until .*2026-01-31 is before since, 2026-02-01"):
        load_config("watch", ConfigText("w.yaml", text))
    assert load_config("watch", ConfigText("w.yaml", text.replace("01-31", "02-01"))).until


@pytest.mark.parametrize("anchors", ["{}/./nights//anchors/", "file://{}/nights/anchors"])
def test_the_path_of_anchors_may_be_written_otherwise(real, tmp_path, anchors):
    folder = write_nights(tmp_path / "nights", real[1], Team(1).nights(5))
    write_nights(folder / "anchors", real[1], Team(1).nights(7))
    verdict = judge_nights(config_of(tmp_path, anchors=anchors.format(tmp_path)))
    assert (len(verdict.nights), len(verdict.anchors)) == (5, 7)


def test_anchors_that_no_key_names_are_warned_of(real, tmp_path, caplog):
    folder = write_nights(tmp_path / "nights", real[1], Team(1).nights(5))
    write_nights(folder / "anchors", real[1], Team(1).anchors(8))
    judge_nights(config_of(tmp_path))
    assert "name their folder in the key anchors" in caplog.text
    caplog.clear()
    judge_nights(config_of(tmp_path, nights=str(folder / "anchors")))
    assert "the key anchors" not in caplog.text


def test_anchors_of_another_input_are_left_out(changed, real, tmp_path):
    write_nights(tmp_path / "nights", real[1], Team(1).nights(3))
    other = {**real[1].extra["identity"], "input": {"other.jsonl": "1 byte"}}
    manifest = replace(real[1], extra={**real[1].extra, "identity": other})
    write_nights(tmp_path / "anchors", manifest, Team(1).nights(1))
    write_nights(tmp_path / "anchors", real[1], Team(1).nights(3)[1:])
    verdict = judge_nights(config_of(tmp_path, anchors=str(tmp_path / "anchors")))
    assert [anchor.day for anchor in verdict.anchors] == [day(1), day(2)]


@pytest.mark.parametrize("command", [["plan"], ["submit", "docker", "--dry-run"]])
def test_there_is_nothing_to_plan_or_to_submit(changed, capsys, command):
    path = changed / "watch.yaml"
    path.write_text(f"run: watch\nnights: {changed}/nights\n", encoding="utf-8")
    assert run([*command, str(path)]) == ExitCode.CONFIG
    assert "recap watch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "start"),
    [("aws-batch", "--job-definition recap-watch"), ("kubernetes", "--from=cronjob/recap-watch")],
)
def test_a_cluster_has_a_job_of_its_own_for_it(changed, capsys, target, start):
    path = changed / "watch.yaml"
    path.write_text(f"run: watch\nnights: {changed}/nights\n", encoding="utf-8")
    assert run(["submit", target, str(path), "--dry-run"]) == ExitCode.CONFIG
    assert start in " ".join(capsys.readouterr().err.split())
