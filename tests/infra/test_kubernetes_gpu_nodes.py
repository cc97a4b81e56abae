"""The pods fit the nodes of the page on GPU nodes, by what each provider leaves for pods."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.infra.kustomize import FOLDER, Template, amount_of, render, with_gpu

pytestmark = pytest.mark.infra

PAGE = (FOLDER / "gpu-nodes.md").read_text(encoding="utf-8")
GIB = 2**30
# Cores and GiB.
MACHINES = {"g6.2xlarge": (8, 32), "g5.2xlarge": (8, 32), "g2-standard-8": (8, 32)}
IMAGES = 20.0  # GiB that system and images take of a disk
# Cores and GiB that DaemonSets ask for. Others have measured 0.44 and 0.58 on GKE, and less on EKS.
DAEMON_SETS = (0.5, 0.6)


@dataclass(frozen=True)
class Left:
    """The room of a node for pods: cores, GiB of memory and disk. `whole` is the disk's size."""

    cores: float
    memory: float
    disk: float
    whole: float


def of_eks(cores: int, memory: float, disk: float) -> Left:
    """Amazon Linux 2023 with 58 pods. Karpenter expects 7.5 % less memory than a machine's name."""
    return Left(
        cores=cores - cores_of_the_kubelet(cores),
        memory=0.925 * memory - (255 + 11 * 58 + 100) / 1024,
        disk=0.9 * disk - 1,
        whole=disk,
    )


def of_gke(cores: int, memory: float, disk: float) -> Left:
    """By Google's page on node sizes. A machine has 2 % less, and COS takes 6 GiB of the disk."""
    has = 0.98 * memory
    kept = 0.25 * 4 + 0.2 * 4 + 0.1 * min(has - 8, 8) + 0.06 * max(has - 16, 0)
    stateful = disk - 6
    return Left(
        cores=cores - cores_of_the_kubelet(cores),
        memory=has - kept - 100 / 1024,
        disk=0.9 * stateful - min(0.5 * stateful, 6 + 0.35 * stateful, 100),
        whole=disk,
    )


def cores_of_the_kubelet(cores: int) -> float:
    """Both keep 6 % of the first core, 1 % of the second, 0.5 % of two, 0.25 % of the others."""
    return 0.06 + 0.01 + 2 * 0.005 + 0.0025 * (cores - 4)


def blocks() -> list[dict[str, Any]]:
    """The manifests of the page."""
    found = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return [each for block in found for each in yaml.safe_load_all(block)]


def pools() -> list[tuple[str, Left]]:
    """Return the room that the nodes of each pool of the page have for pods."""
    eksctl, node_class, _ = blocks()
    (group,) = eksctl["managedNodeGroups"]
    (volume,) = node_class["spec"]["blockDeviceMappings"]
    (auto,) = re.findall(r"`ephemeralStorage: \{size: (\w+)\}`", PAGE)
    ((machine, disk),) = re.findall(r"--machine-type (\S+) .*\n.*--disk-size (\d+)", PAGE)
    found = [
        (each, of_eks(*MACHINES[each], group["volumeSize"])) for each in group["instanceTypes"]
    ]
    for name, size in (("Karpenter", volume["ebs"]["volumeSize"]), ("Auto Mode", auto)):
        found.append((name, of_eks(8, 32, amount_of(size) / GIB)))
    return [*found, (machine, of_gke(*MACHINES[machine], int(disk)))]


def assert_fits(template: Template, left: Left) -> None:
    requests = template.container["resources"]["requests"]
    storage = amount_of(requests["ephemeral-storage"]) / GIB
    assert amount_of(requests["cpu"]) <= left.cores - DAEMON_SETS[0]
    assert amount_of(requests["memory"]) / GIB <= left.memory - DAEMON_SETS[1]
    assert storage <= left.disk
    assert storage + IMAGES <= 0.9 * left.whole, "the node evicts it first, which does not count"


def test_the_formulas_give_what_nodes_have_said():
    """Two nodes that others have measured: n2-highmem-4, and r5.xlarge, which has 3.5 % less."""
    assert of_gke(4, 32, 100).memory == pytest.approx(29783904256 / GIB, rel=0.001)
    assert of_gke(4, 32, 100).cores == pytest.approx(3.92)
    assert of_eks(4, 32 * 0.9652 / 0.925, 100).memory == pytest.approx(32123604992 / GIB, rel=0.001)


def test_the_sample_fits_every_pool_of_the_page():
    names = [name for name, _ in pools()]
    assert names == ["g6.2xlarge", "g5.2xlarge", "Karpenter", "Auto Mode", "g2-standard-8"]
    for template in with_gpu(render("company")):
        for _, left in pools():
            assert_fits(template, left)


@pytest.mark.parametrize(("overlay", "row"), [("eks", "the base"), ("company", "the sample")])
def test_pods_fit_the_sizes_of_the_table(overlay, row):
    (cells,) = re.findall(rf"^\| {row}.*?: (.*) \|$", PAGE, re.MULTILINE)
    numbers = [[int(each) for each in re.findall(r"\d+", cell)] for cell in cells.split("|")]
    asks, machine, eks, gke = numbers
    for template in with_gpu(render(overlay)):
        requests = template.container["resources"]["requests"]
        sizes = [requests["cpu"], requests["memory"], requests["ephemeral-storage"]]
        assert sizes == [str(asks[0]), f"{asks[1]}Gi", f"{asks[2]}Gi"]
        assert_fits(template, of_eks(*machine, *eks))
        assert_fits(template, of_gke(*machine, *gke))


def test_pods_of_the_sample_choose_the_pools_of_the_page():
    eksctl, node_class, pool = blocks()
    (group,) = eksctl["managedNodeGroups"]
    nodes = pool["spec"]["template"]
    assert nodes["spec"]["nodeClassRef"]["name"] == node_class["metadata"]["name"]
    ((key, value),) = re.findall(r"--node-labels (\S+)=(\S+)", PAGE)
    for template in with_gpu(render("company")):
        tolerated = {each["key"] for each in template.pod["tolerations"]}
        for labels in (group["labels"], nodes["metadata"]["labels"], {key: value}):
            assert template.pod["nodeSelector"] == labels | {"kubernetes.io/arch": "amd64"}
        for taints in (group["taints"], nodes["spec"]["taints"]):
            assert {taint["key"] for taint in taints} <= tolerated
