"""OGM-GE: Peng et al., CVPR 2022."""

from __future__ import annotations

from typing import Any

from equimodal.reproducing.paper import FIGURE, Paper, Point, Published, Row
from equimodal.training import Settings

# Of the released README for CREMA-D and VGGSound; its default setting has 0.1.
ALPHAS = {"crema-d": 0.8, "vggsound": 0.1, "kinetics-sounds": 0.1, "ave": 0.1, "ave-features": 0.1}
WINDOW = [0, 50]
FUSIONS = ("concat", "sum", "film", "gated")
ISSUE = "https://github.com/GeWu-Lab/OGM-GE_CVPR2022/issues"
NUMBERS = {
    "crema-d/concat/joint": Published(51.7, f"quoted of Table 2 by a reader: {ISSUE}/34"),
    "crema-d/concat/ogm-ge": Published(
        61.9, "quoted by a reader: https://github.com/fanyunfeng-bit/Modal-Imbalance-PMR/issues/2"
    ),
    "crema-d/concat/ogm": Published(
        59.0, "our notes of Tables 2 and 7, second-hand: docs/methods/ge.md"
    ),
    "crema-d/sum/ogm-ge": Published(62.2, f"quoted by a reader: {ISSUE}/30"),
}


def _row(data: str, model: str, label: str, method: str, **options: Any) -> Row:
    return Row(data, model, label, method, options, NUMBERS.get(f"{data}/{model}/{label}"))


def _joint(data: str, model: str) -> Row:
    return _row(data, model, "joint", "joint")


def _ogm_ge(data: str, model: str, parameters: str = "convolutions") -> Row:
    how = {"alpha": ALPHAS[data], "window": WINDOW, "parameters": parameters}
    return _row(data, model, "ogm-ge", "ogm-ge", **how)


def _alone(data: str) -> list[Row]:
    return [_row(data, "concat", m, "unimodal", modality=m) for m in ("audio", "visual")]


def _fusions(data: str) -> list[Row]:
    pairs = [(_joint(data, fusion), _ogm_ge(data, fusion)) for fusion in FUSIONS]
    return [*_alone(data), *(row for pair in pairs for row in pair)]


def _methods(data: str) -> list[Row]:
    how = {"alpha": ALPHAS[data], "window": WINDOW, "parameters": "convolutions"}
    return [
        _joint(data, "concat"),
        _row(data, "concat", "modality-dropout", "modality-dropout"),
        _row(data, "concat", "gradient-blending", "gradient-blending"),
        _row(data, "concat", "mses", "mses"),
        _row(data, "concat", "mslr", "mslr", factors={"audio": 0.9, "visual": 1.1}),
        _row(data, "concat", "ogm", "ogm", **how),
        _ogm_ge(data, "concat"),
    ]


# The hosts of AVE have no convolutions: as the supplement says, all of their parameters before the
# modalities meet are modulated.
HOSTS = (
    _joint("kinetics-sounds", "tsn"),
    _ogm_ge("kinetics-sounds", "tsn"),
    _joint("ave-features", "avga"),
    _ogm_ge("ave-features", "avga", "all"),
    _joint("ave-features", "psp"),
    _ogm_ge("ave-features", "psp", "all"),
)

PAPER = Paper(
    name="ogm-ge-cvpr2022",
    title="Peng, Wei, Deng, Wang, Hu: Balanced Multimodal Learning via On-the-fly Gradient "
    "Modulation, CVPR 2022",
    code="GeWu-Lab/OGM-GE_CVPR2022 343dc1d95c9b",
    settings=Settings(epochs=100, batch_size=64, lr=1e-3, weight_decay=1e-4, lr_step=70),
    views={
        "crema-d": {
            "seconds": 3.0,
            "spectrogram": "log-stft",
            "n_fft": 512,
            "hop": 353,
            "frames": 1,
        },
        "kinetics-sounds": {"seconds": 10.0, "spectrogram": "fbank", "mels": 128, "frames": 3},
        "vggsound": {
            "seconds": 5.0,
            "spectrogram": "log-stft",
            "n_fft": 256,
            "hop": 128,
            "frames": 3,
        },
        "ave": {"seconds": 10.0, "spectrogram": "log-stft", "n_fft": 512, "hop": 159, "frames": 3},
    },
    tables={
        "table1": tuple(
            row
            for data in ("crema-d", "kinetics-sounds", "vggsound", "ave")
            for row in _fusions(data)
        ),
        "table2": tuple(row for data in ("crema-d", "vggsound") for row in _methods(data)),
        "table3": HOSTS,
        FIGURE: (
            *_alone("crema-d"),
            _joint("crema-d", "concat"),
            _ogm_ge("crema-d", "concat"),
        ),
    },
    points=(
        Point(
            "selection",
            "the best of 100 epochs on the test split",
            "the best on a validation split, test looked at once",
            followed=True,
        ),
        Point(
            "split",
            "CREMA-D: 744 of 7,442 clips for test, all of whose speakers are trained on; "
            "no validation split",
            "whole speakers for test (--protocol speakers of prepare), others for validation",
            followed=True,
            of=("crema-d",),
        ),
        Point(
            "split",
            "VGGSound and AVE: lists with videos that are in train and test",
            "training clips of videos of test are left out (--protocol videos of prepare)",
            followed=True,
            of=("vggsound", "ave"),
        ),
        Point(
            "split",
            "AVE's features: lists, of which 8 of 402 videos of test are in train too",
            "the same lists",
            of=("ave-features",),
        ),
        Point(
            "seeds",
            "one run with the seed 0",
            "several paired seeds, 95% t intervals over them",
        ),
        Point(
            "score of FiLM and gated",
            "the split of a concat head, which the released code fails on",
            "ablation: the other modality's feature is zero",
            of=("film", "gated"),
        ),
        Point(
            "frames",
            "the first in the order of the file system, or at fixed places",
            "drawn from equal parts in training, the middle ones in evaluation",
            of=("crema-d", "kinetics-sounds", "vggsound", "ave"),
        ),
        Point(
            "sound",
            "VGGSound: a random 5 s; AVE: power, standardised; Kinetics-Sounds: shifted and scaled",
            "the first 5 s; magnitude as it is; filter banks as they are",
            of=("kinetics-sounds", "vggsound", "ave"),
        ),
        Point(
            "Kinetics-Sounds",
            "14,799 and 2,597 clips of a list of its own, 31 classes",
            "the clips that you have of 31 classes, split as Kinetics is",
            of=("kinetics-sounds",),
        ),
        Point(
            "PSP",
            "a pair similarity loss is added with the weight 100 in PSP's code",
            "cross-entropy of the segments alone",
            of=("psp",),
        ),
    ),
    untraced="The article's tables could not be read: numbers are those that others quote, and "
    "which rows stand in which table follows the supplement, the released code and what readers "
    "say. 61.25 is quoted as another number of OGM-GE on CREMA-D (issue 34). alpha of "
    "Kinetics-Sounds and AVE is the default setting of the README; settings of the methods "
    "compared with, and how TSN, AVGA and PSP were trained, are not published: ours, those of "
    "AGM's code for MSLR, and the schedule above.",
)
