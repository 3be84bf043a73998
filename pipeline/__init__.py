"""What the stages compute, without a word of Prefect."""

import gc

# Every command of the project passes here before it loads torch.
# What libraries make while they load is there to stay, hundreds of thousands of objects. To look for garbage among them
# at every 700 new ones, as Python does, is a sixth of the time that a training takes to start.
gc.set_threshold(50_000)
