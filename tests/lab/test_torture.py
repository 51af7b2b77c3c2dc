"""Killed at any moment, the daemon loses nothing that it acknowledged and hands nothing to the
wrong one; torture.py says what is done and what is checked, and does it for longer.

    HOLDFAST_LONG=1 pytest tests/lab/test_torture.py     # 300 kills; docs/testing.md
    TORTURE_KILLS=60 TORTURE_SEED=N pytest tests/lab/test_torture.py
"""

import os
import time

from torture import Torture

LONG = os.environ.get("HOLDFAST_LONG") == "1"
KILLS = int(os.environ.get("TORTURE_KILLS") or (300 if LONG else 12))


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
