"""Nights are watched once they are there; a week goes from feedback to a challenger."""

from datetime import timedelta
from typing import Any

import pytest

from job.config.commands import FeedbackConfig, TrainConfig
from job.config.document import ConfigText
from job.config.load import load_config
from job.config.watch_config import WatchConfig
from tests.infra.kustomize import (
    WEEKLY,
    Manifest,
    amount_of,
    named,
    of_kind,
    pods,
    render,
    together,
)

VARIABLES = {"date": "2026-02-02"}
SAMPLE = pytest.param("company", marks=pytest.mark.infra)


def cron_job(overlay: str, name: str) -> Manifest:
    found: Manifest = of_kind(render(overlay), "CronJob")[name]["spec"]
    return found


def config(overlay: str, name: str) -> Any:
    (data,) = (
        each["data"]
        for map_name, each in of_kind(render(overlay), "ConfigMap").items()
        if map_name.startswith("recap-config-")
    )
    command = {"watch": "watch", "feedback": "feedback", "challenger": "train"}.get(name)
    return load_config(command, ConfigText(name, data[f"{name}.yaml"]), (), VARIABLES)


def feedback_of(overlay: str) -> Manifest:
    (found,) = named(overlay, WEEKLY).pod["initContainers"]
    return found


# Nights that are watched


@pytest.mark.parametrize("overlay", ["eks", SAMPLE])
def test_a_watch_begins_with_its_night_and_ends_after_it_on_the_same_day(overlay):
    night, watch = cron_job(overlay, "recap-summarize"), cron_job(overlay, "recap-watch")
    assert (watch["schedule"], watch["timeZone"]) == (night["schedule"], night["timeZone"])
    assert named(overlay, "recap-watch").environment["RECAP_TIME_ZONE"] == night["timeZone"]
    assert watch["concurrencyPolicy"] == "Forbid"

    longest = night["startingDeadlineSeconds"]
    longest += night["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    loaded = config(overlay, "watch")
    assert isinstance(loaded, WatchConfig)
    assert loaded.wait_minutes * 60 >= longest
    deadline = watch["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert deadline > loaded.wait_minutes * 60
    minute, hour = watch["schedule"].split()[:2]
    seconds = watch["startingDeadlineSeconds"] + deadline
    last = timedelta(hours=int(hour), minutes=int(minute), seconds=seconds)
    assert last < timedelta(hours=24), "a pod after midnight would expect another night"


@pytest.mark.parametrize("overlay", ["eks", SAMPLE])
def test_a_watch_expects_the_night_that_its_cluster_makes(overlay):
    watch, night = named(overlay, "recap-watch"), named(overlay, "recap-summarize")
    assert watch.container["command"] == ["recap", "watch"]
    assert watch.environment["RECAP_VAR_DATE"] == night.environment["RECAP_VAR_DATE"]
    loaded = config(overlay, "watch")
    assert loaded.expected.isoformat() == VARIABLES["date"]
    assert config(overlay, "nightly").output.startswith(loaded.nights)


def test_a_watch_takes_no_gpu_and_no_node_that_has_one():
    watch = named("eks", "recap-watch")
    assert "tolerations" not in watch.pod
    assert watch.container["image"] == named("eks", "recap-train").container["image"]


def test_a_demo_of_one_night_has_nothing_to_compare():
    assert "recap-watch" not in of_kind(render("no-gpu"), "CronJob")


# A week


@pytest.mark.parametrize("overlay", ["weekly", SAMPLE])
def test_every_try_of_a_week_has_the_date_of_its_monday(overlay):
    week = cron_job(overlay, WEEKLY)
    minute, hour, *days = week["schedule"].split()
    assert days == ["*", "*", "1"]
    assert int(hour) > int(cron_job(overlay, "recap-summarize")["schedule"].split()[1])
    seconds = week["startingDeadlineSeconds"]
    seconds += week["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    last = timedelta(hours=int(hour), minutes=int(minute), seconds=seconds)
    assert last < timedelta(days=7)
    assert week["concurrencyPolicy"] == "Forbid"
    assert not week.get("suspend")

    zone = cron_job(overlay, "recap-summarize")["timeZone"]
    assert week["timeZone"] == zone
    for container in (feedback_of(overlay), named(overlay, WEEKLY).container):
        values = {each["name"]: each.get("value") for each in container["env"]}
        assert (values["RECAP_VAR_DATE"], values["RECAP_TIME_ZONE"]) == ("monday", zone)


@pytest.mark.parametrize("overlay", ["weekly", SAMPLE])
def test_a_week_trains_on_what_its_feedback_has_written(overlay):
    feedback, challenger = config(overlay, "feedback"), config(overlay, "challenger")
    assert isinstance(feedback, FeedbackConfig)
    assert isinstance(challenger, TrainConfig)
    assert str(challenger.data.train).startswith(f"{feedback.output.rstrip('/')}/sft/")
    assert challenger.data.validation == feedback.evaluation_sets, "never trained on"
    assert challenger.training.start_from == feedback.champion
    assert config(overlay, "nightly").output.startswith(str(feedback.nights))
    assert feedback.anchors == f"{feedback.nights}anchors/", "where watching.md puts them"
    assert VARIABLES["date"] in feedback.output
    assert VARIABLES["date"] in challenger.run, "each week has a challenger of its own"
    assert challenger.publish.gate is not None
    assert challenger.publish.champion == feedback.champion


def test_feedback_and_training_are_one_after_the_other_with_a_code_each():
    week = named("weekly", WEEKLY)
    feedback = feedback_of("weekly")
    assert feedback["command"] == ["recap", "feedback"]
    assert "restartPolicy" not in feedback, "a sidecar would not be waited for"
    assert feedback["image"] == week.container["image"]
    rules = [rule for rule in week.job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert not [rule for rule in rules if "containerName" in rule["onExitCodes"]], "of either"
    assert [rule["action"] for rule in rules] == ["Count", "FailJob"]


@pytest.mark.parametrize("overlay", ["weekly", SAMPLE])
def test_feedback_makes_the_pod_no_larger(overlay):
    own = feedback_of(overlay)["resources"]
    whole = named(overlay, WEEKLY).container["resources"]
    for kind in ("requests", "limits"):
        for name, amount in own[kind].items():
            assert amount_of(amount) <= amount_of(whole[kind][name])
    assert "nvidia.com/gpu" not in own["limits"]


def test_feedback_writes_to_work_alone_and_holds_no_token_of_the_hub():
    feedback = feedback_of("weekly")
    assert feedback["securityContext"]["readOnlyRootFilesystem"] is True
    writable = [each["mountPath"] for each in feedback["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/work"]
    assert "HF_TOKEN" not in {each["name"] for each in feedback["env"]}


@pytest.mark.infra
def test_feedback_knows_proxy_and_certificates_as_the_training_does():
    week, feedback = named("company", WEEKLY), feedback_of("company")
    assert feedback["envFrom"] == week.container["envFrom"]
    of_feedback = {each["name"]: each.get("value") for each in feedback["env"]}
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert of_feedback[name] == week.environment[name]
    mounts = {each["name"] for each in feedback["volumeMounts"]}
    assert mounts == {each["name"] for each in week.container["volumeMounts"]} - {"shared-memory"}


@pytest.mark.infra
def test_a_week_waits_for_its_quota_and_chooses_nvidias_runtime(tmp_path):
    manifests = together(tmp_path, "weekly", "kueue", "runtime-class", "openshift")
    labels = of_kind(manifests, "CronJob")[WEEKLY]["spec"]["jobTemplate"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "recap"
    pod = pods(manifests)[WEEKLY]
    assert pod["runtimeClassName"] == "nvidia"
    assert "runAsUser" not in pod["securityContext"]
