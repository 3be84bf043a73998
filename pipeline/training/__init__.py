"""Training: one resumable loop, its optimiser, schedule and checkpoints, and the stages that use it."""
