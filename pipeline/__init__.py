"""What the stages compute. Knows neither Prefect nor DVC."""

import os

# libgomp, torch's OpenMP, reads it when torch is first imported. By default a thread that waits for the others spins,
# and on shared cores takes from them the very time it waits for: of two small trainings side by side on two cores
# a step took 1900 ms, and 44 ms where threads sleep instead.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
