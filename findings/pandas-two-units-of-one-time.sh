#!/usr/bin/env bash
# One would swear: the integer behind a time stamp is in nanoseconds, or at least in one unit, whether it is
#   taken from a single time stamp or from the column that holds it.
# What happens: `Timestamp.value` is in nanoseconds, `column.astype('int64')` of the same times in microseconds:
#   a factor of 1000. The unit of a column depends on how it was made (a cast to datetime64[ns] gives
#   nanoseconds again).
# Seen with: pandas 3.1.1.
# Why it matters: to find the frame of an event, code compares the integer of one with the column of the other.
#   The search then runs off the end of the recording and takes the last frame for all events, which is a frame
#   that exists.
# In equimodal: not met yet; where a table of times is read, cast to datetime64[ns] first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pandas==3.1.1 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pandas as pd

frames = pd.Series(pd.to_datetime(["2026-01-01 00:00:00", "2026-01-01 00:00:01", "2026-01-01 00:00:02"]))
event = frames[1]
numbers = frames.astype("int64")
place = int(np.searchsorted(numbers, event.value))
cast = int(np.searchsorted(frames.astype("datetime64[ns]").astype("int64"), event.value))
print(f"pandas {version('pandas')}, column {frames.dtype}")
print(f"one time stamp: {event.value}; the same in the column: {numbers[1]}")
print(f"the frame of the event is 1; found {place}; found after a cast to nanoseconds {cast}")
held = event.value == 1000 * numbers[1] and place == 3 and cast == 1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
