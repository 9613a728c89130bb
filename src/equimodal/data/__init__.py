"""Data sets to try a method on; those here come with the package.

>>> from equimodal import data
>>> splits = data.load("watch")
>>> splits.train
Arrays(2191 samples: accelerometer (3, 100), gyroscope (3, 100))
>>> accelerometer, gyroscope, target = splits.train[0]
"""

from equimodal.data.arrays import Arrays
from equimodal.data.card import Card
from equimodal.data.embedded import available, load
from equimodal.data.splits import Splits

__all__ = ["Arrays", "Card", "Splits", "available", "load"]
