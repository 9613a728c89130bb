"""What a model answers for each sample, as columns, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from equimodal.cli.folders import new_or_existing_folder
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.system.files import csv_of, partial_of, publish, write_whole

Columns = dict[str, list[object]]
ENDINGS = (".csv", ".parquet")


def refuse_file(out: Path | None) -> None:
    """Refuse what cannot be written to, before anything is run.

    Raises:
        SetupError: it is a folder, ends in something else than .csv and .parquet, or its folder
            cannot be written to.
        ImportError: Parquet cannot be written here.
    """
    if out is None:
        return
    if out.is_dir():
        raise SetupError(f"--out: {out} is a folder, expected a file")
    if out.suffix not in ENDINGS:
        raise SetupError(f"--out: expected a file in {' or '.join(ENDINGS)}, found {out}")
    if out.suffix == ".parquet":
        require("data", "pyarrow")
    new_or_existing_folder(out.parent)


def classified(
    outputs: Tensor,
    targets: Tensor,
    classes: Sequence[str] | None = None,
    samples: Sequence[object] | None = None,
    alone: Mapping[str, Tensor] | None = None,
) -> Columns:
    """Return the columns of a classifier's answers.

    Args:
        outputs: logits, shape ``(N, C)``.
        targets: int64, shape ``(N,)``.
        classes: their names; numbers without.
        samples: names of the samples; numbers without.
        alone: logits of each modality, which it gives by itself.

    Returns:
        The sample, its target, the class that was found and its probability; with names, also the
        probability of every class; and the class that each modality finds alone.
    """
    likely = outputs.double().softmax(dim=1)
    probability, found = likely.max(dim=1)

    def named(labels: Tensor) -> list[object]:
        return [label if classes is None else classes[label] for label in labels.tolist()]

    columns: Columns = {
        "sample": list(range(len(targets)) if samples is None else samples),
        "target": named(targets),
        "class": named(found),
        "probability": [round(value, 4) for value in probability.tolist()],
    }
    for place, name in enumerate(classes or ()):
        columns[f"p({name})"] = [round(value, 6) for value in likely[:, place].tolist()]
    for name, logits in (alone or {}).items():
        columns[f"{name} alone"] = named(logits.argmax(dim=1))
    return columns


def plain(outputs: Tensor) -> Columns:
    """Return outputs as they are, where the target is no class: a column for each number."""
    flat = outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
    columns: Columns = {"sample": list(range(len(flat)))}
    for place in range(flat.shape[1]):
        columns[f"output_{place}"] = [float(f"{value:.6g}") for value in flat[:, place].tolist()]
    return columns


def write(columns: Columns, out: Path | None) -> None:
    """Write columns to a file, which is there whole or not at all, or print them as CSV."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    if out is not None and out.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), partial_of(out))
        publish(out)
        return
    text = csv_of([columns, *zip(*columns.values(), strict=True)])
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
