"""The command that repeats what a folder holds, where there is one."""

from __future__ import annotations

import ast
import inspect
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace

from equimodal import data
from equimodal.compare.runs import RATE, Entry, entry_of, main_job
from equimodal.compare.summary import REFERENCE
from equimodal.errors import SetupError
from equimodal.methods.registry import available
from equimodal.methods.supplied import supplied
from equimodal.report.plan import entries_of
from equimodal.report.results import Results
from equimodal.training.models import HEADS, PLAIN
from equimodal.training.settings import Settings

FROM_PYTHON = "It was made from Python, with settings that the command does not have."


def command_of(results: Results) -> tuple[str, str]:
    """Return the command that repeats results, or an empty one, and what is to be said about it."""
    parts = _compare(results) if results.comparison else _train(results)
    if parts is None:
        return "", FROM_PYTHON
    where = _where(results)
    remark = ""
    if where is None:
        where = ["DATASET", *_modalities(results)]
        remark = (
            f"DATASET is the file or folder of {results.data}, with the same options for it if "
            f"there were any; the splits are the same if the command prints {results.fingerprint}."
        )
    kind = "compare" if results.comparison else "train"
    spelt = [*where, *parts, *_settings(results)]
    return shlex.join(["equimodal", kind, *spelt, "--out", str(results.folder)]), remark


def _where(results: Results) -> list[str] | None:
    """Return the data with its options; None if it is not known where it was taken from."""
    if results.data in data.available():
        return [results.data, *_modalities(results)]
    source = results.about.get("source")
    options = source.get("options") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or not isinstance(options, Mapping):
        return None
    name, *_ = words = str(source.get("name")), *_modalities(results)
    chosen = {option: value for option, value in options.items() if option != "modalities"}
    try:
        return [*words, *data.Source(name, chosen).words()[1:]]
    except (AttributeError, TypeError):  # the file was changed by hand
        return None


def _compare(results: Results) -> list[str] | None:
    entries = entries_of(held.run for held in results.runs)
    seeds = list(results.seeds)
    if not entries or seeds != list(range(len(seeds))):
        return None
    rates = {entry.grid.get(RATE) for entry in entries}
    if len(rates) > 1:
        return None
    chosen = rates.pop()
    entries = [
        replace(entry, grid={n: v for n, v in entry.grid.items() if n != RATE}) for entry in entries
    ]
    grids = {alphas for entry in entries if (alphas := _alphas(entry))}
    if len(grids) > 1:
        return None
    alphas = grids.pop() if grids else ()
    job = main_job(results.modalities, alphas or (0.0,))
    labels = [entry.label for entry in entries]
    settings = results.about.get("settings")
    epochs = settings.get("epochs") if isinstance(settings, Mapping) else None
    known = available()
    plain = [
        entry_of(entry.method, known[entry.method.split("+")[0]], results.modalities, epochs or 1)
        for entry in entries
        if known.keys() >= set(entry.method.split("+"))
    ]
    of_job = [entry for entry in job if entry.label in labels]
    others = [entry for entry in entries if entry.label not in {each.label for each in job}]
    if any(entry not in job and entry not in plain for entry in entries) or not all(
        entry in entries for entry in of_job
    ):
        return None
    parts = [f"--seeds={len(seeds)}"]
    encoder = results.about.get("encoder")
    if encoder not in (None, "small"):
        parts.append(f"--encoder={encoder}")
    if alphas:
        parts.append(f"--alphas=[{', '.join(f'{alpha}' for alpha in alphas)}]")
    if chosen:
        parts.append(f"--lr=[{', '.join(f'{rate}' for rate in chosen)}]")
    offered = job
    if others:
        methods = list(dict.fromkeys(entry.method for entry in entries))
        offered = [entry for entry in job if entry.method in (*methods, REFERENCE)]
        named = [name for name in methods if name != REFERENCE]
        parts.append(f"--methods=[{', '.join(named)}]")
    if len(of_job) < len(offered):
        parts.append(f"--rows=[{', '.join(labels)}]")
    return parts


def _alphas(entry: Entry) -> tuple[float, ...]:
    return tuple(value for value in entry.grid.get("alpha", ()) if isinstance(value, int | float))


def _train(results: Results) -> list[str] | None:
    described = results.about.get("method") or next((r.method for r in results.finished), "")
    method = _method(str(described))
    if method is None:
        return None
    model = results.about.get("model")
    held = model if isinstance(model, Mapping) else {}
    fusion = next((name for name, kind in HEADS.items() if kind.__name__ == held.get("head")), None)
    parts = [] if fusion in (None, "concat") else [f"--fusion={fusion}"]
    encoders = [str(held.get(name)) for name in results.modalities]
    if "ResNet18" in encoders:
        parts.append("--encoder=resnet18")
    elif any(PLAIN in each for each in encoders):
        parts.append("--encoder=plain")
    return [*method, *parts]


def _method(described: str) -> list[str] | None:
    """Read a method as it was written, such as ``OGM(alpha=0.3, floor=0.0)``."""
    try:
        call = ast.parse(described, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return None  # several methods, or nothing of ours
    by_class = {kind.__name__: kind for kind in available().values()}
    kind = by_class.get(call.func.id)
    if kind is None:
        return None
    parts = [f"--method={kind.name}"]
    for name, option in inspect.signature(kind).parameters.items():
        given = next((each.value for each in call.keywords if each.arg == name), None)
        if given is None:
            continue
        try:
            value = ast.literal_eval(given)
        except ValueError:  # an object, which no option makes unless it is the usual one
            if supplied(kind) or ast.unparse(given) != repr(getattr(kind(), name, None)):
                return None
            continue
        if value != option.default:
            spelt = list(value) if isinstance(value, tuple) else value
            parts.append(f"--method.{name.replace('_', '-')}={spelt}")
    return parts


def _modalities(results: Results) -> list[str]:
    """Return the choice of modalities, unless it is all that an embedded data set has."""
    names = results.modalities
    try:
        if results.data in data.available() and data.load(results.data).modalities == names:
            return []
    except (SetupError, OSError):
        pass
    return [f"--modalities=[{', '.join(names)}]"] if names else []


def _settings(results: Results) -> list[str]:
    """Return the settings that are not what suits the data."""
    found = results.about.get("settings") or next((r.settings for r in results.finished), {})
    if not isinstance(found, Mapping):
        return []
    try:
        usual = Settings(optimizer=found.get("optimizer", "sgd")).suited(results.data)
    except SetupError:
        return []
    usual = replace(usual, optimizer=Settings().optimizer)
    names = [f.name for f in fields(Settings) if f.name in found]
    changed = {name: found[name] for name in names if found[name] != getattr(usual, name)}
    if results.comparison:
        changed.pop("seed", None)
    return [f"--{name.replace('_', '-')}={value}" for name, value in changed.items()]


def versions_of(results: Results) -> dict[str, str]:
    """Return the versions that the results were made with."""
    said = results.about.get("versions")
    if isinstance(said, Mapping):
        return {str(name): str(version) for name, version in said.items()}
    return next((result.versions for result in results.finished), {})
