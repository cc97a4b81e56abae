"""Claims about the variables of schedulers that make this machine a node."""

import pytest

from job.errors import ConfigError
from job.launch.cluster import ALONE, LOOPBACK, PORT, Cluster, find_cluster

MAIN = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"


def batch(index: int, main: int = 0, nodes: int = 3) -> dict[str, str]:
    given = {
        "AWS_BATCH_JOB_NUM_NODES": str(nodes),
        "AWS_BATCH_JOB_NODE_INDEX": str(index),
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": str(main),
    }
    return given if index == main else given | {MAIN: "10.0.0.7"}


def test_without_variables_of_a_scheduler_there_is_one_node():
    assert find_cluster({}) == ALONE
    assert find_cluster({"JOB_COMPLETION_INDEX": "3"}) == ALONE, "an index alone is a shard's"
    assert find_cluster({"AWS_BATCH_JOB_ARRAY_INDEX": "3"}) == ALONE


def test_the_main_node_of_aws_batch_reaches_itself_without_an_address():
    assert find_cluster(batch(0)) == Cluster(3, 0, LOOPBACK, PORT)
    assert find_cluster(batch(2)) == Cluster(3, 2, "10.0.0.7", PORT)


def test_the_main_node_is_node_0_whatever_its_index():
    ranks = [find_cluster(batch(index, main=1)).rank for index in range(3)]
    assert ranks == [2, 0, 1]


def test_an_indexed_job_is_nodes_where_the_manifest_says_so():
    given = {"RECAP_NODES": "2", "RECAP_MAIN_ADDRESS": "train-0.train"}
    assert find_cluster(given | {"JOB_COMPLETION_INDEX": "0"}) == Cluster(2, 0, LOOPBACK, PORT)
    assert find_cluster(given | {"JOB_COMPLETION_INDEX": "1"}) == Cluster(
        2, 1, "train-0.train", PORT
    )


def test_a_train_job_sets_torchruns_variables():
    given = {
        "PET_NNODES": "2",
        "PET_MASTER_ADDR": "main",
        "PET_MASTER_PORT": "29400",
        "JOB_COMPLETION_INDEX": "0",
    }
    assert find_cluster(given | {"PET_NODE_RANK": "1"}) == Cluster(2, 1, "main", 29400)
    assert find_cluster(given | {"PET_NODE_RANK": "1", "RECAP_MAIN_PORT": "30000"}).port == 30000


def test_one_process_a_node_with_torchs_own_variables():
    given = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "main", "MASTER_PORT": "29400"}
    assert find_cluster(given) == Cluster(2, 1, "main", 29400)


def test_one_node_is_no_cluster():
    assert find_cluster(batch(0, nodes=1)) == ALONE
    assert (
        find_cluster({"PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "main"}) == ALONE
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RECAP_NODES": "2"}, "but not JOB_COMPLETION_INDEX: set it too"),
        (
            {"RECAP_NODES": "2", "JOB_COMPLETION_INDEX": "1"},
            "but not RECAP_MAIN_ADDRESS: set it too",
        ),
        (
            {"RECAP_MAIN_ADDRESS": "main", "JOB_COMPLETION_INDEX": "1"},
            "but not RECAP_NODES: set it too",
        ),
        ({"AWS_BATCH_JOB_NODE_INDEX": "1"}, "but not AWS_BATCH_JOB_NUM_NODES: set it too"),
        ({"PET_NNODES": "1:4", "PET_NODE_RANK": "0"}, "PET_NNODES is '1:4'"),
        ({"MASTER_ADDR": "main"}, "but not WORLD_SIZE: set it too"),
        ({"RECAP_NODES": "2", "JOB_COMPLETION_INDEX": "2"}, "nodes count from 0 to 1"),
        (
            {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"},
            "start one `recap train` on each node",
        ),
    ],
)
def test_half_of_it_is_a_config_error_with_its_remedy(given, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        find_cluster(given)
