"""Claims about Kueue: which Jobs wait in its queue, and that the example of one can start them."""

import pytest
import yaml

from tests.infra.kustomize import CHECK, FOLDER, Manifest, amount_of, of_kind, render, templates

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def example() -> dict[str, Manifest]:
    """The example of a ClusterQueue and its flavor, by kind."""
    text = (FOLDER / "overlays" / "kueue" / "cluster-queue.yaml").read_text(encoding="utf-8")
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def queue_names(overlay: str) -> dict[str, str | None]:
    """The queue of each CronJob's Jobs, or None."""
    return {
        name: cron_job["spec"]["jobTemplate"].get("metadata", {}).get("labels", {}).get(QUEUE_LABEL)
        for name, cron_job in of_kind(render(overlay), "CronJob").items()
    }


def test_trainings_and_nights_wait_in_the_queue():
    names = {"recap-train": "recap", "recap-summarize": "recap", "recap-watch": None}
    assert queue_names("kueue") == names
    queue = of_kind(render("kueue"), "LocalQueue")["recap"]
    assert queue["apiVersion"] == "kueue.x-k8s.io/v1beta2"
    assert queue["spec"] == {"clusterQueue": example()["ClusterQueue"]["metadata"]["name"]}


@pytest.mark.infra
def test_the_trial_of_a_cluster_waits_for_no_gpu():
    found = queue_names("company")
    assert (found.pop(CHECK), found.pop("recap-watch")) == (None, None)
    assert set(found.values()) == {"recap"}


@pytest.mark.parametrize("overlay", ["kueue", pytest.param("company", marks=pytest.mark.infra)])
def test_the_example_of_a_queue_can_start_every_job(overlay):
    """Kueue starts none with a resource that the queue does not name, or above its quota."""
    (group,) = example()["ClusterQueue"]["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == example()["ResourceFlavor"]["metadata"]["name"]
    quotas = {each["name"]: amount_of(each["nominalQuota"]) for each in flavor["resources"]}
    assert list(quotas) == group["coveredResources"]
    for template in templates(render(overlay)):
        resources = template.container["resources"]
        pods = template.job.get("parallelism", 1)
        for name, amount in (resources["limits"] | resources["requests"]).items():
            assert pods * amount_of(amount) <= quotas[name]
