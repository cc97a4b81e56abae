"""Claims about the line of a plan that counts optimizer steps, and what GPUs change of it."""

from typing import Any

from job.config.commands import TrainConfig
from job.preflight.checks import Found
from job.preflight.steps import describe_steps
from job.training.planned_steps import with_processes


def config(**training: Any) -> TrainConfig:
    """A training with 16 rows for each process in a step."""
    content = {"run": "r", "model": {"base": "/b"}, "data": {"train": "/t"}, "output": "/o"}
    return TrainConfig.model_validate(content | {"training": {"epochs": 3} | training})


def steps(rows: int, gpus: int = 0, nodes: int = 1, **training: Any) -> Found[None]:
    return describe_steps(with_processes(config(**training), gpus), rows, nodes)


def test_steps_of_an_unknown_machine_are_those_of_one_process():
    found = steps(4308)
    assert found.text.splitlines() == [
        "810 of 16 rows on one GPU or a CPU; 4,308 rows, 270 steps an epoch",
        "training.processes is not set: each GPU of a machine adds 16 rows to a step; steps by "
        "GPUs: 405 on 2, 204 on 4, 102 on 8",
        "to keep steps of 16 rows, divide training.gradient_accumulation_steps by the GPUs",
    ]
    assert found.facts["steps_by_gpus"] == {2: 405, 4: 204, 8: 102}
    for gpus, count in found.facts["steps_by_gpus"].items():
        assert steps(4308, processes=gpus).facts["steps"] == count


def test_each_gpu_of_this_machine_is_a_process_unless_the_config_counts():
    (line,) = steps(4308, gpus=4).text.splitlines()
    assert line == ("204 of 64 rows (16 in each of 4 processes); 4,308 rows, 68 steps an epoch")
    assert steps(4308, gpus=4, processes=2).facts["processes"] == 2
    (alone,) = steps(4308, gpus=1).text.splitlines()
    assert alone == "810 of 16 rows; 4,308 rows, 270 steps an epoch"


def test_more_gpus_leave_max_steps_as_it_is():
    found = steps(4308, max_steps=100)
    assert found.facts["steps"] == 100
    assert "adds 16 rows to a step, and training.max_steps reads more of the data" in found.text


def test_several_machines_are_counted():
    assert steps(4308, nodes=2).text.startswith("405 of 32 rows with one GPU on each of 2 machines")
    assert steps(4308, gpus=4, nodes=2).facts["rows_per_step"] == 128
