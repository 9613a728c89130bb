"""MMPareto: Wei and Hu, ICML 2024."""

from __future__ import annotations

from typing import Any

from equimodal.reproducing.paper import LISTS_OF_OGM_GE, ONE_SEED, Paper, Point, Published, Row
from equimodal.training import Settings

EPOCHS = 50
READ = "Table 1, arXiv 2405.17730"
NUMBERS = {
    "crema-d/concat/multi-loss": Published(71.10, READ),
    "kinetics-sounds/concat/multi-loss": Published(68.31, READ),
    "crema-d/concat/pretraining": Published(71.51, READ),
    "kinetics-sounds/concat/pretraining": Published(68.75, READ),
}


def _rows(data: str) -> list[Row]:
    def row(label: str, model: str = "concat", **options: Any) -> Row:
        number = NUMBERS.get(f"{data}/{model}/{label}")
        return Row(data, model, label, label, options, number)

    return [
        row("joint"),
        row("multi-loss"),
        row("pretraining"),
        row("gradient-blending"),
        row("ogm-ge", alpha=0.8 if data == "crema-d" else 0.1, parameters="convolutions"),
        row("joint", "mmtm"),
        row("greedy", "mmtm"),
        row("pmr"),
        row("agm"),
        row("mmpareto", gamma=1.5),
    ]


PAPER = Paper(
    name="mmpareto-icml2024",
    title="Wei, Hu: MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance, "
    "ICML 2024",
    code="GeWu-Lab/MMPareto_ICML2024 a339db39cc25",
    # The released script makes a schedule and never steps it.
    settings=Settings(epochs=EPOCHS, batch_size=64, lr=2e-3, weight_decay=1e-4, lr_step=EPOCHS),
    views={
        "crema-d": {"seconds": 3.0, "spectrogram": "fbank", "mels": 128, "frames": 2},
        "kinetics-sounds": {"seconds": 10.0, "spectrogram": "fbank", "mels": 128, "frames": 3},
    },
    tables={"table1": (*_rows("crema-d"), *_rows("kinetics-sounds"))},
    points=(
        Point(
            "selection",
            "the best of 50 epochs on the test split",
            "the best on a validation split, test looked at once",
            followed=True,
        ),
        LISTS_OF_OGM_GE,
        ONE_SEED,
        Point(
            "sound",
            "stored filter banks, whose making is not published",
            "Kaldi's filter banks of 3 s (CREMA-D) and 10 s",
        ),
        Point(
            "Greedy",
            "not in the released code",
            "on ResNet-18 with MMTM gates between them, beside joint training of the same",
            of=("mmtm",),
        ),
    ),
    untraced="Of the article's table the rows of the uniform sum and of pre-training are quoted "
    "as they were read; the others could not be. The released code has the joint loss, the uniform "
    "sum (multi-loss) and MMPareto on CREMA-D; settings of the other methods, and the frames of "
    "Kinetics-Sounds, are ours.",
)
