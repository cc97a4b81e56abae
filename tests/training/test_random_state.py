"""Claims about the random state that a training keeps, and about whose it asks for."""

import torch

from job.training.own_head import trying
from job.training.random_state import own_gpus, random_state


def test_restored_numbers_are_drawn_again():
    state = random_state()
    drawn = torch.rand(3)
    assert not torch.equal(torch.rand(3), drawn)
    state.restore()
    assert torch.equal(torch.rand(3), drawn)


def test_a_trial_asks_no_other_gpu_for_its_state(monkeypatch):
    """Without a list, torch asks all GPUs of the machine: memory on each, and a warning."""
    asked = []
    forked = torch.random.fork_rng

    def fork(devices=None):
        asked.append(devices)
        return forked([])

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    with trying(torch.nn.Linear(2, 2)):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with trying(torch.nn.Linear(2, 2)):
        pass
    assert asked == [[], [3]]
    assert own_gpus() == [3]
