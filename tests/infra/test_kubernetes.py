"""A cluster accepts the manifests, runs a job again if recap asks for it, and gives it time."""

import copy
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import (
    TrainerV1alpha1TrainingRuntime,
)
from kubernetes_validate.utils import all_versions, major_minor

from job.config.commands import TrainConfig
from job.config.limits_section import TrainLimitsSection
from job.config.load import load_config
from job.demo.story import BUCKET, example_folder
from job.errors import ExitCode
from job.launch.processes import KILL_SECONDS
from job.storage.config_file import read_config
from tests.infra.kustomize import (
    CHECK,
    EACH_OVERLAY,
    FOLDER,
    MINORS,
    OVERLAYS,
    QUICK,
    TRAIN_JOB,
    WEEKLY,
    named,
    of_kind,
    render,
    templates,
)

TEMPLATES = [
    *((overlay, name) for overlay in OVERLAYS for name in ("recap-summarize", "recap-train")),
    *((overlay, "recap-watch") for overlay in OVERLAYS if overlay != "no-gpu"),
    ("weekly", WEEKLY),
    ("company", WEEKLY),
    ("nodes", "recap-train (TrainingRuntime)"),
    ("nodes-indexed", "recap-train-nodes"),
    ("company", "recap-train-nodes"),
]
AGAIN = {ExitCode.RETRY, 128, 137, 143}
CRASHED = {134, 139}  # by SIGABRT and SIGSEGV: a night finds the record that is to blame
# Kinds that Kubernetes' own schema does not know.
CUSTOM = {"LocalQueue", "PrometheusRule", "TrainingRuntime"}


@pytest.fixture(params=EACH_OVERLAY)
def manifests(request):
    return render(request.param)


@pytest.fixture(
    params=[
        pytest.param(each, marks=() if each[0] in QUICK else pytest.mark.infra, id="-".join(each))
        for each in TEMPLATES
    ]
)
def template(request):
    return named(*request.param)


def decide(job, container, exit_code=None, disrupted=False):
    """Return the Job controller's action on a failed pod: the first matching rule's, or Count."""
    for rule in job["podFailurePolicy"]["rules"]:
        if "onPodConditions" in rule:
            matches = (
                disrupted
                and {"type": "DisruptionTarget", "status": "True"} in rule["onPodConditions"]
            )
        else:
            codes = rule["onExitCodes"]
            assert codes.get("containerName", container["name"]) == container["name"]
            matches = exit_code is not None and (exit_code in codes["values"]) == (
                codes["operator"] == "In"
            )
        if matches:
            return rule["action"]
    return "Count"


@pytest.mark.infra
def test_every_template_is_tried_here():
    assert sorted(TEMPLATES) == sorted(
        (overlay, each.name) for overlay in OVERLAYS for each in templates(render(overlay))
    )


# Schemas


@pytest.mark.parametrize("minor", MINORS)
def test_manifests_are_valid_for_current_kubernetes(manifests, minor):
    for each in manifests:
        if each["kind"] not in CUSTOM:
            assert kubernetes_validate.validate(each, minor, strict=True) == minor


def test_current_kubernetes_is_the_newest_that_can_be_asked():
    known = sorted(
        {major_minor(each) for each in all_versions()}, key=lambda minor: int(minor.split(".")[1])
    )
    assert known[-3:] == MINORS
    lint = (FOLDER.parent / "lint" / "check.sh").read_text(encoding="utf-8")
    assert f"\nkubernetes_minors=({' '.join(MINORS)})\n" in lint


def test_a_misspelt_key_is_no_valid_manifest():
    cron_job = copy.deepcopy(of_kind(render("eks"), "CronJob")["recap-train"])
    cron_job["spec"]["jobTemplate"]["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(cron_job, MINORS[-1], strict=True)


@pytest.mark.parametrize("kind", ["TrainingRuntime", "TrainJob"])
def test_kubeflow_keeps_every_key_of_what_trainer_is_given(kind):
    if kind == "TrainJob":
        model, manifest = (
            TrainerV1alpha1TrainJob,
            yaml.safe_load(TRAIN_JOB.read_text(encoding="utf-8")),
        )
    else:
        model, manifest = (
            TrainerV1alpha1TrainingRuntime,
            of_kind(render("nodes"), kind)["recap-train"],
        )
    assert model.from_dict(manifest).to_dict() == manifest
    misspelt = manifest | {"spec": manifest["spec"] | {"mlPolicies": {}}}
    assert (
        model.from_dict(misspelt).to_dict() == manifest
    )  # a key that it does not know would be gone


def test_jobs_obey_what_the_api_server_asks_beyond_its_schema(template):
    job = template.job
    rules = job["podFailurePolicy"]["rules"]
    assert template.pod["restartPolicy"] == "Never"  # or there may be no podFailurePolicy
    assert job["podReplacementPolicy"] == "Failed"
    for values in (rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule):
        assert values == sorted(set(values))
        assert 0 not in values
    if "backoffLimitPerIndex" in job or any(rule["action"] == "FailIndex" for rule in rules):
        assert job["completionMode"] == "Indexed"
        assert "backoffLimitPerIndex" in job
    assert len(f"{template.name}-29512345") <= 63


# Exit codes


@pytest.mark.parametrize("code", [each for each in ExitCode if each], ids=lambda code: code.name)
def test_exit_codes_are_followed(template, code):
    final = "FailIndex" if template.command == "summarize" else "FailJob"
    assert decide(template.job, template.container, code) == (
        "Count" if code == ExitCode.RETRY else final
    )


def test_killed_from_outside_is_run_again_and_what_nobody_foresaw_is_not(template):
    final = "FailIndex" if template.command == "summarize" else "FailJob"
    decided = {code: decide(template.job, template.container, code) for code in range(1, 256)}
    again = AGAIN | CRASHED if template.command == "summarize" else AGAIN
    assert {code for code, action in decided.items() if action == "Count"} == again
    assert {action for code, action in decided.items() if code not in again} == {final}
    assert (
        decide(template.job, template.container) == "Count"
    )  # the pod was lost with its node, without a code


def test_disruption_decides_before_the_exit_code(template):
    actions = {
        decide(template.job, template.container, code, disrupted=True)
        for code in (*ExitCode, 137, 143)
    }
    # A runtime's Job has no retries of its own: its failure makes the whole JobSet start again.
    whole_set = template.name.endswith("(TrainingRuntime)")
    assert actions == ({"Count"} if whole_set else {"Ignore"})


def test_interruptions_are_bounded(template):
    if template.command == "summarize":
        assert template.job["backoffLimitPerIndex"] >= 3
        assert "backoffLimit" not in template.job  # or it would bound all workers together
    elif "TrainingRuntime" not in template.name:
        assert template.job["backoffLimit"] == 10 * template.job.get("completions", 1)


# Time


def test_pods_are_given_longer_than_recap_takes_to_stop(template, tmp_path):
    config = config_of(template, tmp_path)
    limits = (
        config.limits if isinstance(config, TrainConfig) else TrainLimitsSection()
    )  # a night ends at once
    assert template.pod["terminationGracePeriodSeconds"] > limits.grace_seconds + KILL_SECONDS


def test_every_job_ends_and_is_tidied_away(template):
    assert template.job["activeDeadlineSeconds"] >= 3600
    if "TrainingRuntime" not in template.name:
        assert template.job["ttlSecondsAfterFinished"] >= 86400


def test_one_night_at_a_time_and_all_of_its_workers_on_the_same_day(manifests):
    night = of_kind(manifests, "CronJob")["recap-summarize"]["spec"]
    (pod,) = [each for each in templates(manifests) if each.command == "summarize"]
    assert (night["concurrencyPolicy"], night["timeZone"]) == (
        "Forbid",
        pod.environment["RECAP_TIME_ZONE"],
    )
    assert pod.environment["RECAP_VAR_DATE"] == "yesterday"
    minute, hour, *days = night["schedule"].split()
    assert days == ["*", "*", "*"]
    deadlines = (
        night["startingDeadlineSeconds"] + night["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    )
    last = timedelta(hours=int(hour), minutes=int(minute), seconds=deadlines)
    assert last < timedelta(
        hours=24
    )  # a worker that starts after midnight would take another day for yesterday


def test_a_followed_job_is_not_deleted_for_newer_ones(manifests):
    """All count that a CronJob owns, those of recap submit too. The oldest goes when it ends."""
    for name, cron_job in of_kind(manifests, "CronJob").items():
        spec = cron_job["spec"]
        if name != CHECK:
            limits = (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"])
            assert min(limits) >= 1000


def test_trainings_start_only_when_somebody_asks(manifests):
    for name, cron_job in of_kind(manifests, "CronJob").items():
        if name.startswith("recap-train") and name != WEEKLY:
            assert cron_job["spec"]["suspend"] is True
            assert cron_job["spec"]["schedule"] == "0 0 31 2 *"


# Names, configs, workers


def test_names_are_those_that_recap_submit_asks_for(manifests):
    assert set(of_kind(manifests, "Namespace")) == {"recap"}
    assert {"recap-train", "recap-summarize"} <= set(of_kind(manifests, "CronJob"))
    everything = {
        each["metadata"].get("namespace") for each in manifests if each["kind"] != "Namespace"
    }
    assert everything == {"recap"}
    for each in templates(manifests):
        assert each.container["name"] == ("node" if "TrainingRuntime" in each.name else "recap")
        assert each.labels["app.kubernetes.io/name"] == "recap"


def test_images_carry_the_version_of_this_checkout(template, request):
    if "company" in request.node.name:
        tag = "3f9c2ab01d47"
    elif "no-gpu" in request.node.name:
        tag = "train"  # a laptop's image has only its target's name
    else:
        tag = version("recap")
    assert template.container["image"].rpartition(":")[2] == tag


def test_config_is_there_and_right(template, tmp_path):
    assert config_of(template, tmp_path).run


def config_of(template, tmp_path):
    """Return the config of a pod, from its ConfigMap or from the S3 server of the try overlay."""
    place = template.environment["RECAP_CONFIG"]
    if place.startswith("s3://"):
        assert place.startswith(f"s3://{BUCKET}/configs/")
        return load_config(template.command, read_config(str(example_folder() / Path(place).name)))
    (mount,) = [
        each
        for each in template.container["volumeMounts"]
        if each["mountPath"] == str(Path(place).parent)
    ]
    (volume,) = [each for each in template.pod["volumes"] if each["name"] == mount["name"]]
    found = volume["configMap"]["name"]
    overlay = next(
        each for each in ("eks", "weekly", "company") if found in of_kind(render(each), "ConfigMap")
    )
    config_map = of_kind(render(overlay), "ConfigMap")[found]
    assert config_map["metadata"]["name"].startswith("recap-config-")
    assert (mount["readOnly"], config_map["immutable"]) == (True, True)
    file = tmp_path / Path(place).name
    file.write_text(config_map["data"][file.name], encoding="utf-8")
    variables = {
        name.removeprefix("RECAP_VAR_").lower(): value
        for name, value in template.environment.items()
    }
    return load_config(template.command, read_config(str(file)), (), variables)


def test_shards_are_the_completions(manifests):
    (night,) = [each for each in templates(manifests) if each.command == "summarize"]
    assert night.job["completionMode"] == "Indexed"
    assert (
        night.job["completions"]
        == night.job["parallelism"]
        == int(night.environment["RECAP_SHARDS"])
    )


def test_gpus_are_asked_for_except_where_there_are_none(template, request):
    asked = template.container["resources"]["limits"].get("nvidia.com/gpu")
    without = "no-gpu" in request.node.name or not template.has_gpu
    assert asked == (None if without else "1")
    assert template.environment["RECAP_GPUS"] == ("0" if without else "required")


def test_pods_wait_for_a_machine_that_can_run_the_images(template, request):
    without = "no-gpu" in request.node.name
    asked = template.pod["nodeSelector"].get("kubernetes.io/arch")
    assert asked == (None if without else "amd64")


def test_a_job_that_fills_memory_or_disk_is_stopped_for_that(template, request):
    resources = template.container["resources"]
    assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()
    if "no-gpu" not in request.node.name:
        for name in ("memory", "ephemeral-storage"):
            assert resources["limits"][name] == resources["requests"][name]
