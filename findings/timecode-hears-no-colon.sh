#!/usr/bin/env bash
# One would swear: at 29.97 frames a second, 01:00:00:00 with colons counts every number and 01:00:00;00 with a
#   semicolon skips some (drop frame), as the notation of SMPTE has it.
# What happens: both are taken as drop frame, and the colons are printed back as a semicolon. 00:01:00:00 becomes
#   00:00:59;28, an hour is 3600.0 s in place of 3603.6 s.
# Seen with: timecode 1.5.1.
# Why it matters: cameras and sound recorders of one scene are aligned by time codes, often one in each notation. Sound
#   is then off by 67 ms after a minute and by 3.6 s after an hour, more with every clip of a day, and nothing is said.
#   Pass force_non_drop_frame=True where there are colons.
# In equimodal: not met; media are placed by their own clocks, not by time codes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet timecode==1.5.1
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

from timecode import Timecode

FRAME = 1001 / 30000
print(f"timecode {version('timecode')}")
seen = {}
cases = [("00:01:00:00", False), ("00:01:00:00", True), ("01:00:00;00", False), ("01:00:00:00", False)]
for text, force in [*cases, ("01:00:00:00", True)]:
    code = Timecode("29.97", text, force_non_drop_frame=force)
    seen[text, force] = str(code), code.frame_number
    said = ", force_non_drop_frame=True" if force else ""
    print(f"{text}{said}: {code}, frame {code.frame_number}, {code.frame_number * FRAME:.2f} s")
held = seen["00:01:00:00", False] == ("00:00:59;28", 1798) and seen["00:01:00:00", True] == ("00:01:00:00", 1800)
held = held and seen["01:00:00:00", False] == seen["01:00:00;00", False] == ("01:00:00;00", 107892)
raise SystemExit(0 if held and seen["01:00:00:00", True][1] == 108000 else "the behaviour has changed")
PYTHON
