"""A Hugging Face model and its processor, from a folder or by name, ready to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.diagnostics.blind.matching import Matcher
from equimodal.diagnostics.blind.speaking import Speaker
from equimodal.errors import SetupError
from equimodal.system.extras import require


def opened(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: str = "auto",
    choices: Sequence[str] = (),
) -> Speaker | Matcher:
    """Open a model by its architecture: one that answers in words, or one that compares.

    Args:
        name: folder of a model with its processor, or its name on the hub.
        device: "cuda" if there is one by default.
        dtype: as `torch` calls it, or "auto" for that of the files.
        choices: of a model that compares, for samples that have none.

    Raises:
        SetupError: the folder is no model, the architecture is not known or neither, or there is no
            such device or dtype.
    """
    require("hf", "transformers")
    import torch
    import transformers

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise SetupError(f"dtype: expected auto or one of torch, such as bfloat16, found {dtype!r}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (AssertionError, RuntimeError) as error:  # of another build, or a misspelt name
        raise SetupError(f"device: {place!r}: {str(error).splitlines()[0]}") from error
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise SetupError(f"{name}: expected the folder of a model, found no config.json in it")
    try:
        config = transformers.AutoConfig.from_pretrained(str(name))
        kind = getattr(transformers, (config.architectures or [""])[0], None)
        if kind is None:
            raise SetupError(
                f"{name}: architectures: expected a model of transformers "
                f"{transformers.__version__}, found {config.architectures}"
            )
        processors: Any = transformers.AutoProcessor
        processor = processors.from_pretrained(str(name))
        model = kind.from_pretrained(str(name), torch_dtype=dtype)
    except OSError as error:  # no such name, no network, a file that is missing
        raise SetupError(f"{name}: {str(error).strip().splitlines()[0]}") from error
    model.eval().to(place)
    return scorer(model, processor, Path(name).name, choices)


def scorer(
    model: Any, processor: Any, name: str = "", choices: Sequence[str] = ()
) -> Speaker | Matcher:
    """Return what asks a model that is there already.

    Raises:
        SetupError: it neither answers in words nor compares.
    """
    can = getattr(model, "can_generate", lambda: False)
    if can():
        return Speaker(model, processor, name)
    looks = hasattr(model, "get_image_features") or hasattr(model, "get_audio_features")
    if looks and hasattr(model, "get_text_features"):
        return Matcher(model, processor, name, choices)
    raise SetupError(
        f"{type(model).__name__} neither answers in words nor compares texts with pictures or "
        "sounds: give blind a function that scores samples"
    )
