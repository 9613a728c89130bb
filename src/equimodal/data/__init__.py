"""Data sets to try a method on: those that come with the package, and files of one's own.

>>> from equimodal import data
>>> splits = data.load("watch")
>>> splits.train
Arrays(2191 samples: accelerometer (3, 100), gyroscope (3, 100))
>>> accelerometer, gyroscope, target = splits.train[0]
"""

from equimodal.data.arrays import Arrays
from equimodal.data.batches.clips import Clips
from equimodal.data.batches.order import Order
from equimodal.data.batches.stream import stream
from equimodal.data.batches.view import View
from equimodal.data.card import Card
from equimodal.data.embedded import available
from equimodal.data.embedded.synthetic import Synthetic
from equimodal.data.leaking import Leakage, leakage
from equimodal.data.lerobot import LeRobot
from equimodal.data.loading import load
from equimodal.data.samples import Samples
from equimodal.data.source import Source
from equimodal.data.splits import Splits

__all__ = [
    "Arrays",
    "Card",
    "Clips",
    "LeRobot",
    "Leakage",
    "Order",
    "Samples",
    "Source",
    "Splits",
    "Synthetic",
    "View",
    "available",
    "leakage",
    "load",
    "stream",
]
