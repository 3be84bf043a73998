"""What the stages compute. Knows neither Prefect nor DVC."""

import os

# libgomp, torch's OpenMP, reads it when torch is first imported. By default a thread that waits for the others spins,
# and on shared cores takes from them the very time it waits for: of two small trainings side by side on two cores
# a step took 94 to 121 ms, and 42 ms where threads sleep instead; alone 35 to 39 ms, and 36 to 40 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
