"""OpenShift admits the pods, and NVIDIA's runtime starts them where it must be named."""

import pytest

from tests.infra.kustomize import Manifest, of_kind, pods, render, together, with_gpu
from tests.infra.pod_security import violations

pytestmark = pytest.mark.infra

WITH_PODS = [["no-gpu"], ["nodes"], ["nodes-indexed"], ["check", "nodes-indexed"]]


def scc_violations(pod: Manifest) -> list[str]:
    """Return what SCC restricted-v2 refuses beyond the standard: every id that the pod chooses."""
    contexts = [pod.get("securityContext", {})]
    contexts += [container.get("securityContext", {}) for container in pod["containers"]]
    found = []
    for context in contexts:
        for key in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"):
            if key in context:
                found.append(key)
    return found


@pytest.mark.parametrize("components", WITH_PODS, ids="-".join)
def test_openshift_admits_every_pod(tmp_path, components):
    manifests = together(tmp_path, *components, "openshift")
    assert pods(manifests)
    for name, pod in pods(manifests).items():
        assert scc_violations(pod) == [], name
        assert violations(pod) == [], name


def test_openshift_would_refuse_the_base():
    for pod in pods(render("eks")).values():
        assert scc_violations(pod) == ["runAsUser", "runAsGroup", "fsGroup"]


def test_openshift_answers_names_on_the_port_of_its_pods():
    policy = of_kind(render("openshift"), "NetworkPolicy")["openshift-dns"]["spec"]
    assert policy["podSelector"] == {}
    (rule,) = policy["egress"]
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {
        ("UDP", 5353),
        ("TCP", 5353),
    }
    (peer,) = rule["to"]
    labels = peer["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": "openshift-dns"}


@pytest.mark.parametrize("nodes", ["nodes", "nodes-indexed"])
def test_runtime_class_is_named_by_every_pod_with_a_gpu(tmp_path, nodes):
    manifests = together(tmp_path, nodes, "check", "runtime-class")
    named = {each.name: each.pod["runtimeClassName"] for each in with_gpu(manifests)}
    assert len(named) == 3
    assert set(named.values()) == {"nvidia"}
    for without in ("recap-check", "recap-watch"):
        assert "runtimeClassName" not in pods(manifests)[without]


def test_runtime_class_is_named_nowhere_else():
    for overlay in ("eks", "no-gpu", "company"):
        assert not [pod for pod in pods(render(overlay)).values() if "runtimeClassName" in pod]
