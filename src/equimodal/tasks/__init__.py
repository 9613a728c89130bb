"""Many tasks on one machine or many: a task is a function by name, a specification, a folder.

Files are the only state. A task is done when its result is there, written whole; whoever is asked
for the same tasks again does those that are left. Engines differ in where they run them.
"""

from equimodal.tasks.carry import Outcome, carry_out
from equimodal.tasks.engine import Ended, Engine
from equimodal.tasks.local import Local
from equimodal.tasks.lock import HOLD, Lock, holding, locked
from equimodal.tasks.named import engine_of
from equimodal.tasks.progress import note, place
from equimodal.tasks.task import Task

__all__ = [
    "HOLD",
    "Ended",
    "Engine",
    "Local",
    "Lock",
    "Outcome",
    "Task",
    "carry_out",
    "engine_of",
    "holding",
    "locked",
    "note",
    "place",
]
