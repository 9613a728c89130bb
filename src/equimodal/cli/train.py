"""equimodal train: one model, one method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equimodal import data
from equimodal.cli.parser import Parser, existing_or_new_folder
from equimodal.methods import OGMGE
from equimodal.training import Fusion, Result, Settings, fit, model_for


def run(arguments: Sequence[str]) -> int:
    """Train, and print what came of it."""
    parser = Parser(
        "train",
        "Train a small model on a data set by one method, choose the epoch by validation accuracy, "
        "and evaluate it on the test split once.",
    )
    parser.add("data", type=str, help=f"a data set: {', '.join(data.available())}")
    parser.add_method(OGMGE)
    parser.add("--modalities", type=list[str], default=None, help="some of them, as [a, b]")
    parser.add("--fusion", type=Fusion, default="concat", help="how features are fused")
    parser.add("--out", type=Path, default=None, help="folder for checkpoints and logs")
    parser.add("--resume", action="store_true", help="go on with the run in --out")
    parser.add_settings(Settings)
    options = parser.read(arguments)
    names = list(Settings.__dataclass_fields__)
    settings = Settings(**{name: getattr(options, name) for name in names})
    splits = data.load(options.data, modalities=options.modalities)
    out = None if options.out is None else existing_or_new_folder(str(options.out))
    print(splits)
    model = model_for(splits, options.fusion, settings.seed)
    result = fit(
        splits, options.method, settings, model, out=out, resume=options.resume, progress=True
    )
    print(_report(result, out))
    return 0


def _report(result: Result, out: Path | None) -> str:
    lines = [
        f"{result.method.split('(')[0]}, best of {len(result.history)} epochs on validation: "
        f"{result.best_epoch + 1} ({100 * result.val['accuracy']:.1f}%)",
        "",
        f"  {'test accuracy':<28}{100 * result.test['accuracy']:5.1f}%",
        f"  {'test macro-F1':<28}{100 * result.test['macro_f1']:5.1f}%",
    ]
    for name, value in result.test.items():
        if name.startswith("accuracy/"):
            what = f"{name.removeprefix('accuracy/')}, read alone"
            lines.append(f"  {what:<28}{100 * value:5.1f}%")
    if out is not None:
        lines += ["", f"checkpoints, logs and result.json are in {out}"]
    return "\n".join(lines)
