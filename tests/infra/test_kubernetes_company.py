"""The sample overlay for a company: every knob reaches every pod, and its copy is the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.kustomize import (
    CHECK,
    FOLDER,
    MINORS,
    WEEKLY,
    Manifest,
    Template,
    build,
    of_kind,
    pods,
    render,
    templates,
    together,
)

pytestmark = pytest.mark.infra

SAMPLE = FOLDER / "overlays" / "company"
REGISTRY = "registry.example.com"
PROXY = "http://proxy.example.com:8080"


@pytest.fixture(params=["recap-summarize", "recap-train", "recap-train-nodes", WEEKLY])
def template(request: pytest.FixtureRequest) -> Template:
    return next(each for each in templates(render("company")) if each.name == request.param)


def settings() -> Manifest:
    found: Manifest = yaml.safe_load((SAMPLE / "kustomization.yaml").read_text(encoding="utf-8"))
    return found


def from_config_map(prefix: str) -> tuple[str, dict[str, str]]:
    """Return name and data of the ConfigMap whose name begins so."""
    (found,) = [
        each
        for name, each in of_kind(render("company"), "ConfigMap").items()
        if name.startswith(prefix)
    ]
    return found["metadata"]["name"], found["data"]


def test_every_cron_job_is_tried_here():
    names = {"recap-summarize", "recap-watch", "recap-train", "recap-train-nodes", WEEKLY, CHECK}
    assert set(of_kind(render("company"), "CronJob")) == names


def test_images_are_the_companys_with_a_tag_of_the_code(template):
    (tag,) = {image["newTag"] for image in settings()["images"]}
    assert template.container["image"] == f"{REGISTRY}/recap-{template.command}:{tag}"
    assert re.fullmatch("[0-9a-f]{12}", tag)


def test_every_account_pulls_with_the_secret_and_has_a_role_of_its_own():
    accounts = of_kind(render("company"), "ServiceAccount")
    used = {pod["serviceAccountName"] for pod in pods(render("company")).values()}
    assert used == set(accounts)
    roles = set()
    for name, account in accounts.items():
        assert account["imagePullSecrets"] == [{"name": "recap-registry"}]
        role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        assert role.endswith(f":role/{name}")
        roles.add(role)
    assert len(roles) == 3


def test_pods_ask_for_the_companys_machines(template):
    pool = {"example.com/pool": "gpu-l4", "kubernetes.io/arch": "amd64"}
    assert template.pod["nodeSelector"] == pool
    keys = [toleration["key"] for toleration in template.pod["tolerations"]]
    assert keys == ["nvidia.com/gpu", "example.com/team"]
    node = template.pod["affinity"]["nodeAffinity"]
    terms = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    known = {tuple(term["matchExpressions"][0].get("values", ())) for term in terms}
    assert known == {(), ("579",)}  # driver 580 or newer, or unknown


def test_pods_have_the_companys_size(template):
    resources = template.container["resources"]
    assert resources["requests"]["cpu"] == "7"
    for name, size in {"memory": "26Gi", "ephemeral-storage": "100Gi"}.items():
        assert resources["requests"][name] == resources["limits"][name] == size
    work = next(volume for volume in template.pod["volumes"] if volume["name"] == "work")
    assert work["emptyDir"] == {"sizeLimit": "100Gi"}


def test_pods_know_proxy_store_and_hub(template):
    name, data = from_config_map("recap-proxy-")
    first, secret = template.container["envFrom"]  # the last source decides
    assert first == {"configMapRef": {"name": name}}
    assert "secretRef" in secret
    assert (data["HTTP_PROXY"], data["HTTPS_PROXY"]) == (PROXY, PROXY)
    assert {"AWS_ENDPOINT_URL_S3", "HF_ENDPOINT"} <= data.keys()
    policy = of_kind(render("company"), "NetworkPolicy")["proxy"]["spec"]
    (rule,) = policy["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": int(PROXY.rpartition(":")[2])}]
    assert policy["podSelector"]["matchLabels"].items() <= template.labels.items()


def test_pods_trust_the_companys_certificates(template):
    name, _ = from_config_map("recap-certificates-")
    volumes = {volume["name"]: volume for volume in template.pod["volumes"]}
    assert volumes["certificates"]["configMap"] == {"name": name}
    (mount,) = [
        mount for mount in template.container["volumeMounts"] if mount["name"] == "certificates"
    ]
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert template.environment[variable] == f"{mount['mountPath']}/ca.crt"


def test_pods_have_the_companys_configs(template):
    name, data = from_config_map("recap-config-")
    volumes = {volume["name"]: volume for volume in template.pod["volumes"]}
    assert volumes["config"]["configMap"] == {"name": name}
    for file in ("train", "nightly", "watch", "feedback", "challenger"):
        text = (SAMPLE / f"{file}.yaml").read_text(encoding="utf-8")
        assert data[f"{file}.yaml"] == text


def test_the_number_of_workers_and_the_zone_are_written_once():
    (night,) = [each for each in templates(render("company")) if each.command == "summarize"]
    assert night.job["completions"] == 2
    assert night.job["parallelism"] == 2
    assert night.environment["RECAP_SHARDS"] == "2"
    cron_job = of_kind(render("company"), "CronJob")["recap-summarize"]
    assert cron_job["spec"]["timeZone"] == night.environment["RECAP_TIME_ZONE"] == "Europe/Berlin"


def test_a_runtime_of_kubeflow_gets_proxy_and_certificates_too(tmp_path):
    maps = [
        {"name": "recap-proxy", "literals": ["HTTPS_PROXY=http://proxy:8080"]},
        {"name": "recap-certificates", "literals": ["ca.crt=none"]},
    ]
    manifests = together(
        tmp_path, "nodes", "proxy", "certificates", configMapGenerator=maps, namespace="recap"
    )
    one, nodes = [each for each in templates(manifests) if each.command == "train"]
    assert nodes.name == "recap-train (TrainingRuntime)"
    assert nodes.container["envFrom"] == one.container["envFrom"]
    assert nodes.environment == one.environment
    assert {volume["name"]: volume for volume in nodes.pod["volumes"]} == {
        volume["name"]: volume for volume in one.pod["volumes"]
    }


@pytest.mark.parametrize("component", settings()["components"], ids=lambda path: Path(path).name)
def test_what_a_cluster_does_not_need_can_be_deleted(tmp_path, component):
    mine = tmp_path / "infra" / "kubernetes"
    shutil.copytree(FOLDER, mine)
    file = mine / "overlays" / "company" / "kustomization.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if f"- {component}" not in line]
    assert len(lines) - len(kept) == 1
    file.write_text("".join(kept), encoding="utf-8")
    manifests = build(file.parent)
    assert len(list(templates(manifests))) >= 2
    assert manifests != render("company")


def test_another_owner_gets_everything_in_another_namespace(tmp_path):
    components = ("nodes-indexed", "check", "kueue", "eks", "openshift")
    manifests = together(tmp_path, *components, namespace="support")
    assert set(of_kind(manifests, "Namespace")) == {"support"}
    others = [each for each in manifests if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {"support"}
    for policy in of_kind(manifests, "NetworkPolicy").values():
        for rule in policy["spec"].get("ingress", ()):  # none from another namespace
            assert all(set(peer) == {"podSelector"} for peer in rule["from"])


# The page


def test_a_copy_made_as_the_page_says_is_the_sample(tmp_path):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    copy = re.findall(r"^cp -R .*company deploy$", page, re.MULTILINE)
    edit = re.findall(r"^sed .* > deploy/kustomization\.yaml$", page, re.MULTILINE)
    shutil.copytree(FOLDER, tmp_path / "infra" / "kubernetes")
    for command in copy + edit:
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert build(tmp_path / "deploy") == render("company")
    assert Path(tmp_path / "deploy" / "train.yaml").exists()


def test_the_page_names_every_overlay_and_component():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert rows == {path.name for path in (FOLDER / "overlays").iterdir()}
    for component in (FOLDER / "components").iterdir():
        assert component.name == "pod" or f"`{component.name}`" in page


def test_the_page_names_the_minors_that_are_checked():
    page = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    assert f"checked against the schemas of {MINORS[0]}, {MINORS[1]} and {MINORS[2]}" in page


@pytest.mark.parametrize("page", ["infra/kubernetes/README.md", "docs/operations.md"])
def test_pages_tag_images_with_the_code_that_is_in_them(page):
    text = (FOLDER.parents[1] / page).read_text(encoding="utf-8")
    tags = re.findall(r"--tag \S*(?:REGISTRY|\$REGISTRY)/recap-\$target:(\S+)", text)
    assert tags == ["$TAG"]
    assert "TAG=$(git describe --always --dirty" in text
    assert not re.search(r"(?:newTag: |recap-(?:train|summarize):)0\.", text)
