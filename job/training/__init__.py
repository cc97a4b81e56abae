"""Training: the run, its dataset, checkpoints and logs."""
