"""ARL: Wei, Luo, Luo, ICCV 2025."""

from __future__ import annotations

from typing import Any

from equimodal.reproducing.paper import LISTS_OF_OGM_GE, ONE_SEED, Paper, Point, Published, Row
from equimodal.training import Settings

# gamma and temperature of the released scripts.
CHOSEN = {"crema-d": (4.0, 8.0), "kinetics-sounds": (3.0, 4.0), "ave": (5.0, 4.0)}
NUMBERS = {
    "ave/concat/joint": Published(66.15, "arXiv 2507.10203, the comparison on AVE"),
}


def _rows(data: str) -> list[Row]:
    def row(label: str, method: str, **options: Any) -> Row:
        return Row(data, "concat", label, method, options, NUMBERS.get(f"{data}/concat/{label}"))

    gamma, temperature = CHOSEN[data]
    weights = {
        "class_path": "equimodal.AsymmetricWeights",
        "init_args": {"temperature": temperature},
    }
    return [
        row("audio", "unimodal", modality="audio"),
        row("visual", "unimodal", modality="visual"),
        row("joint", "joint"),
        row(
            "ogm-ge",
            "ogm-ge",
            alpha=0.8 if data == "crema-d" else 0.1,
            window=[0, 50],
            parameters="convolutions",
        ),
        row("arl", "arl", gamma=gamma, start=5, weights=weights),
    ]


PAPER = Paper(
    name="arl-iccv2025",
    title="Wei, Luo, Luo: Improving Multimodal Learning via Imbalanced Learning, ICCV 2025",
    code="shicaiwei123/ICCV2025-ARL 358af4f67827",
    settings=Settings(epochs=100, batch_size=64, lr=1e-3, weight_decay=1e-4, lr_step=70, clip=40.0),
    views={
        "crema-d": {
            "seconds": 3.0,
            "spectrogram": "log-stft",
            "n_fft": 512,
            "hop": 353,
            "frames": 1,
        },
        "kinetics-sounds": {
            "seconds": 5.0,
            "spectrogram": "log-stft",
            "n_fft": 256,
            "hop": 128,
            "frames": 3,
        },
        "ave": {"seconds": 10.0, "spectrogram": "log-stft", "n_fft": 512, "hop": 159, "frames": 1},
    },
    tables={"table1": tuple(row for data in CHOSEN for row in _rows(data))},
    points=(
        Point(
            "selection",
            "the best epoch after the 30th on the test split",
            "the best on a validation split, test looked at once",
            followed=True,
        ),
        Point("selection", "epochs up to the 30th do not count", "all epochs count"),
        LISTS_OF_OGM_GE,
        Point(
            "split",
            "AVE: lists with videos that are in train and test",
            "training clips of videos of test are left out (--protocol videos of prepare)",
            followed=True,
            of=("ave",),
        ),
        Point("test split", "its last batch is dropped unless it is full", "every clip counts"),
        ONE_SEED,
        Point(
            "schedule",
            "the rate falls one epoch earlier, as its schedule is stepped before training",
            "the rate is a tenth from the 71st epoch on",
        ),
        Point(
            "sound",
            "Kinetics-Sounds: a random 5 s; AVE: stored spectrograms, whose making is not "
            "published",
            "the first 5 s; as OGM-GE's code makes those of AVE",
            of=("kinetics-sounds", "ave"),
        ),
    ),
    untraced="Of the article's tables one number is quoted as it was read: joint training on AVE; "
    "the others could not be, nor which methods stand beside these. alpha of OGM-GE and its window "
    "are those of OGM-GE's code.",
)
