"""Killed at any moment, the daemon loses nothing that it acknowledged and hands nothing to the
wrong one; torture.py says what is done and what is checked, and does it for longer.

    TORTURE_KILLS=300 TORTURE_SEED=N pytest tests/lab/test_torture.py
"""

import os
import time

from torture import Torture

KILLS = int(os.environ.get("TORTURE_KILLS", 18))


def test_whenever_it_is_killed_what_was_acknowledged_is_delivered(lab, daemon):
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() // 1000 % 1000000))
    print(f"TORTURE_SEED={seed}")
    torture = Torture(lab, seed)
    try:
        torture.go_on(KILLS)
    finally:
        torture.close()
        print(torture)
    assert torture.totals["acknowledged"] > 0 and torture.totals["handed over"] > 0
