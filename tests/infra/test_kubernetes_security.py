"""Pods may do no more than they must: the restricted standard, one mount, little network."""

import copy
from typing import Any

import pytest

from tests.infra.kustomize import (
    EACH_OVERLAY,
    FOLDER,
    OVERLAYS,
    build,
    of_kind,
    pods,
    render,
    templates,
)
from tests.infra.pod_security import violations

WRITABLE = {"/work", "/dev/shm"}
BREACHES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("hostNetwork", {"hostNetwork": True}, {}),
    ("volume", {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, {}),
    ("sysctl", {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}),
    ("runAsNonRoot", {"securityContext": {"runAsNonRoot": False}}, {}),
    ("seccompProfile", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {}),
    ("runAsUser", {}, {"runAsUser": 0}),
    ("privileged", {}, {"privileged": True}),
    ("allowPrivilegeEscalation", {}, {"allowPrivilegeEscalation": None}),
    ("capabilities", {}, {"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}),
    ("procMount", {}, {"procMount": "Unmasked"}),
    ("appArmorProfile", {}, {"appArmorProfile": {"type": "Unconfined"}}),
    ("seLinuxOptions", {}, {"seLinuxOptions": {"user": "root"}}),
]


@pytest.fixture(params=EACH_OVERLAY)
def manifests(request):
    return render(request.param)


def test_namespace_refuses_what_is_not_restricted(manifests):
    (namespace,) = of_kind(manifests, "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert {
        labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")
    } == {"restricted"}


def test_every_pod_obeys_the_restricted_standard(manifests):
    found = {name: violations(pod) for name, pod in pods(manifests).items()}
    assert not any(found.values()), found
    assert len(found) >= 2


@pytest.mark.parametrize(
    ("rule", "of_pod", "of_container"), BREACHES, ids=[rule for rule, _, _ in BREACHES]
)
def test_a_pod_that_breaks_the_standard_is_found(rule, of_pod, of_container):
    pod = copy.deepcopy(pods(render("eks"))["recap-train"])
    pod["securityContext"] |= of_pod.get("securityContext", {})
    pod |= {key: value for key, value in of_pod.items() if key != "securityContext"}
    pod["containers"][0]["securityContext"] |= of_container
    assert any(rule in found for found in violations(pod))


def test_pods_hold_no_token_of_the_cluster(manifests):
    accounts = of_kind(manifests, "ServiceAccount").values()
    assert {account["automountServiceAccountToken"] for account in accounts} == {False}
    assert {pod["automountServiceAccountToken"] for pod in pods(manifests).values()} == {False}
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & {
        each["kind"] for each in manifests
    }


def test_each_command_has_an_account_and_an_id_of_its_own(manifests):
    accounts = set(of_kind(manifests, "ServiceAccount"))
    ids = {"recap-train": 10001, "recap-summarize": 10002, "recap-weekly": 10003}
    cluster_decides = "openshift-dns" in of_kind(manifests, "NetworkPolicy")
    for each in templates(manifests):
        context = each.pod["securityContext"]
        for key in ("runAsUser", "runAsGroup", "fsGroup"):
            assert context.get(key) == (None if cluster_decides else ids[each.account])
        assert each.pod["serviceAccountName"] == each.account
        assert each.pod["serviceAccountName"] in accounts


def test_root_is_read_only_and_work_is_the_one_writable_mount(manifests):
    for template in templates(manifests):
        assert template.container["securityContext"]["readOnlyRootFilesystem"] is True
        volumes = {volume["name"]: volume for volume in template.pod["volumes"]}
        mounts = template.container["volumeMounts"]
        writable = {
            mount["mountPath"]: volumes[mount["name"]]["emptyDir"]
            for mount in mounts
            if not mount.get("readOnly")
        }
        assert writable.keys() == (WRITABLE if template.has_gpu else {"/work"})
        assert writable.get("/dev/shm", {"medium": "Memory"})["medium"] == "Memory"
        assert all(volume["sizeLimit"] for volume in writable.values())


def test_secrets_are_named_and_never_written(manifests):
    assert not of_kind(manifests, "Secret")
    for template in templates(manifests):
        tokens = [
            variable["valueFrom"]["secretKeyRef"]
            for variable in template.container["env"]
            if variable["name"] == "HF_TOKEN"
        ]
        reference = {"name": "recap-hugging-face", "key": "token", "optional": True}
        assert tokens == ([reference] if template.has_gpu else [])
        keys = template.container["envFrom"][-1]["secretRef"]  # of a store, for each account
        assert keys == {"name": template.pod["serviceAccountName"], "optional": True}


def test_nobody_outside_reaches_a_pod(manifests):
    policies = of_kind(manifests, "NetworkPolicy")
    default = policies["default"]["spec"]
    assert default["podSelector"] == {}
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    peers = [
        peer
        for each in policies.values()
        for rule in each["spec"].get("ingress", ())
        for peer in rule["from"]
    ]
    assert all(
        set(peer) == {"podSelector"} and peer["podSelector"] for peer in peers
    )  # of this namespace only


@pytest.mark.infra
def test_pods_reach_names_and_https_and_what_their_overlay_needs():
    ways = {}
    for overlay in OVERLAYS:
        for name, policy in of_kind(render(overlay), "NetworkPolicy").items():
            for rule in policy["spec"].get("egress", ()):
                ports = tuple(sorted({port["port"] for port in rule.get("ports", ())}))
                ways.setdefault(overlay, set()).add((name, ports))
    everywhere = {("default", (53,)), ("default", (443,))}
    identity = {("pod-identity", (80,))}
    # Any port, but only among themselves: see below.
    nodes, of_trainer = {("train-nodes", ())}, {("train-nodes-of-trainer", ())}
    assert ways == {
        "alerts": everywhere,
        "company": everywhere | identity | nodes | {("proxy", (8080,))},
        "eks": everywhere | identity,
        "kueue": everywhere,
        "no-gpu": everywhere | {("to-s3", (9000,))},
        "nodes": everywhere | of_trainer,
        "nodes-indexed": everywhere | nodes,
        "openshift": everywhere | {("openshift-dns", (5353,))},
        "proxy": everywhere | {("proxy", (3128,))},
        "runtime-class": everywhere,
        "weekly": everywhere,
    }


def test_names_are_asked_wherever_the_cluster_answers_them(manifests):
    default = of_kind(manifests, "NetworkPolicy")["default"]["spec"]
    (dns,) = [
        rule for rule in default["egress"] if {"protocol": "UDP", "port": 53} in rule["ports"]
    ]
    assert "to" not in dns  # a pod, the node, or a cache at the Service's address
    assert {"protocol": "TCP", "port": 53} in dns["ports"]  # answers that do not fit into UDP


@pytest.mark.parametrize(
    ("overlay", "name"), [("nodes", "train-nodes-of-trainer"), ("nodes-indexed", "train-nodes")]
)
def test_nodes_of_a_training_talk_to_each_other_and_to_nobody_else(overlay, name):
    manifests = render(overlay)
    policy = of_kind(manifests, "NetworkPolicy")[name]["spec"]
    selector = policy["podSelector"]
    assert policy["ingress"] == [{"from": [{"podSelector": selector}]}]
    assert policy["egress"] == [{"to": [{"podSelector": selector}]}]
    chosen = {
        each.name
        for each in templates(manifests)
        if selector["matchLabels"].items() <= each.labels.items()
    }
    assert chosen == {
        "recap-train (TrainingRuntime)" if overlay == "nodes" else "recap-train-nodes"
    }


def test_pods_of_an_identity_reach_only_its_agent():
    (rule,) = of_kind(render("eks"), "NetworkPolicy")["pod-identity"]["spec"]["egress"]
    assert [to["ipBlock"]["cidr"] for to in rule["to"]] == ["169.254.170.23/32", "fd00:ec2::23/128"]


def test_every_folder_of_manifests_is_rendered_here():
    alone = {"eks", "kueue", "no-gpu", "nodes", "nodes-indexed"}
    alone |= {"alerts", "openshift", "proxy", "runtime-class", "weekly"}
    assert set(OVERLAYS) == alone | {"company"}
    within_others = {"pod", "certificates", "check"}
    assert {path.name for path in (FOLDER / "components").iterdir()} == alone | within_others
    assert build(FOLDER / "base")
