"""How downloads look: for each data set, which files make a clip, its label and its split."""

from equimodal.data.layouts.av_mnist import AVMNIST
from equimodal.data.layouts.ave import AVE
from equimodal.data.layouts.clip import (
    Clip,
    Failure,
    Flow,
    Frames,
    Listing,
    Picture,
    Piece,
    Sound,
    Stills,
    Text,
)
from equimodal.data.layouts.crema_d import CremaD
from equimodal.data.layouts.food_101 import Food101
from equimodal.data.layouts.grid import GRID
from equimodal.data.layouts.kinetics_sounds import KineticsSounds
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.manifest import Manifest
from equimodal.data.layouts.meld import MELD
from equimodal.data.layouts.twitter import Twitter15, Twitter17
from equimodal.data.layouts.ucf_101 import UCF101
from equimodal.data.layouts.vggsound import VGGSound

LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (
        CremaD,
        KineticsSounds,
        VGGSound,
        AVE,
        GRID,
        AVMNIST,
        MELD,
        Food101,
        UCF101,
        Twitter15,
        Twitter17,
        Manifest,
    )
}

__all__ = [
    "AVE",
    "AVMNIST",
    "GRID",
    "LAYOUTS",
    "MELD",
    "UCF101",
    "Clip",
    "CremaD",
    "Failure",
    "Flow",
    "Food101",
    "Frames",
    "KineticsSounds",
    "Layout",
    "Listing",
    "Manifest",
    "Picture",
    "Piece",
    "Sound",
    "Stills",
    "Text",
    "Twitter15",
    "Twitter17",
    "VGGSound",
]
