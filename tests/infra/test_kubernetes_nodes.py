"""Claims about training on several nodes: they find each other, start again and end as one."""

import copy

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_failure_policy import JobsetV1alpha2FailurePolicy

from tests.infra.kustomize import TRAIN_JOB, named, of_kind, render, templates, together

# Why a Job failed, of all that JobSet's webhook takes in a rule, and what the set does then.
JOB_ENDS = {
    "BackoffLimitExceeded": "RestartJobSet",
    "DeadlineExceeded": "FailJobSet",
    "FailedIndexes": "RestartJobSet",
    "MaxFailedIndexesExceeded": "RestartJobSet",
    "PodFailurePolicy": "FailJobSet",
}


def test_nodes_of_an_indexed_job_find_the_first_of_them():
    manifests, nodes = render("nodes-indexed"), named("nodes-indexed", "recap-train-nodes")
    assert nodes.job["completionMode"] == "Indexed"
    assert (
        nodes.job["completions"]
        == nodes.job["parallelism"]
        == int(nodes.environment["RECAP_NODES"])
        > 1
    )
    service = of_kind(manifests, "Service")[nodes.pod["subdomain"]]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= nodes.labels.items()
    assert nodes.environment["RECAP_MAIN_ADDRESS"] == f"$(JOB_NAME)-0.{nodes.pod['subdomain']}"
    names = list(nodes.environment)
    assert names.index("JOB_NAME") < names.index(
        "RECAP_MAIN_ADDRESS"
    )  # else it stays as it is written
    (job_name,) = [each for each in nodes.container["env"] if each["name"] == "JOB_NAME"]
    label = "metadata.labels['batch.kubernetes.io/job-name']"
    assert job_name["valueFrom"] == {"fieldRef": {"fieldPath": label}}


def test_nodes_of_a_runtime_are_the_pods_of_a_training():
    one, nodes = named("nodes", "recap-train"), named("nodes", "recap-train (TrainingRuntime)")
    renamed = copy.deepcopy(nodes.pod)
    renamed["containers"][0]["name"] = "recap"  # Trainer tells the container `node` its rank
    assert renamed == one.pod


@pytest.mark.infra
def test_a_cluster_may_have_both_ways_to_train_on_several_nodes(tmp_path):
    both = {each.name: each.pod for each in templates(together(tmp_path, "nodes", "nodes-indexed"))}
    for overlay in ("nodes", "nodes-indexed"):
        for each in templates(render(overlay)):
            assert both[each.name] == each.pod


def test_a_train_job_names_the_runtime_of_its_overlay():
    train_job = yaml.safe_load(TRAIN_JOB.read_text(encoding="utf-8"))
    reference = train_job["spec"]["runtimeRef"]
    runtime = of_kind(render("nodes"), reference["kind"])[reference["name"]]
    assert runtime["metadata"]["namespace"] == train_job["metadata"]["namespace"]
    assert runtime["apiVersion"].split("/")[0] == reference["apiGroup"]
    labels = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["metadata"][
        "labels"
    ]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def test_a_jobset_starts_again_as_one_unless_a_code_is_final_or_time_is_up():
    runtime = of_kind(render("nodes"), "TrainingRuntime")["recap-train"]["spec"]["template"]["spec"]
    assert runtime["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0
    policy = JobsetV1alpha2FailurePolicy.from_dict(runtime["failurePolicy"])
    assert policy.max_restarts >= 10
    for reason in JOB_ENDS:
        matching = [
            rule.action
            for rule in policy.rules
            if reason in (rule.on_job_failure_reasons or JOB_ENDS)
        ]
        assert (matching or ["RestartJobSet"])[0] == JOB_ENDS[reason], reason
    assert {reason for rule in policy.rules for reason in rule.on_job_failure_reasons} <= set(
        JOB_ENDS
    )


def test_only_a_person_removes_a_train_job_as_trainer_would_make_it_anew():
    runtime = of_kind(render("nodes"), "TrainingRuntime")["recap-train"]["spec"]["template"]["spec"]
    (node,) = runtime["replicatedJobs"]
    assert not [
        spec for spec in (runtime, node["template"]["spec"]) if "ttlSecondsAfterFinished" in spec
    ]


@pytest.mark.parametrize("nodes", ["nodes", "nodes-indexed"])
def test_on_eks_no_pod_that_runs_recap_is_moved_for_tidiness(tmp_path, nodes):
    manifests = together(tmp_path, nodes, "eks")
    pods = [each.job["template"]["metadata"]["annotations"] for each in templates(manifests)]
    left_alone = {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    assert pods == [left_alone] * 4
    runs = {each.name: (each.job["podFailurePolicy"], each.pod) for each in templates(manifests)}
    assert runs == {
        each.name: (each.job["podFailurePolicy"], each.pod) for each in templates(render(nodes))
    }
