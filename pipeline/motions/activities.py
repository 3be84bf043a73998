"""What people do: key postures of everyday, dance and sport activities, and when they are held.

Licence-free stand-ins for AMASS (paper section 3.2); `pipeline.motions.generate` varies,
mirrors and blends them.
"""

from __future__ import annotations

from pipeline.motions.dance import DANCE
from pipeline.motions.everyday import EVERYDAY
from pipeline.motions.sport import SPORT
from pipeline.motions.stances import Keys

ACTIVITIES: dict[str, dict[str, Keys]] = {"everyday": EVERYDAY, "dance": DANCE, "sport": SPORT}
"""Dataset folder -> activity -> keys."""
