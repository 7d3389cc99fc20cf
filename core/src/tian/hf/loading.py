"""Load a causal LM and its tokenizer from a local Hugging Face folder; nothing is ever downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tian.errors import DataError, NoDevice

SHIPPED = Path(__file__).parent / "assets" / "small-lm"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_WHERE = "model.path"


def model_folder(path: str | None) -> Path:
    """The folder `path` names, or that of the shipped model, checked file by file.

    Raises:
        DataError: not a folder, or one without config, tokenizer or intact safetensors.
    """
    folder = SHIPPED if path is None else Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"the model folder {folder} {what}",
            where=_WHERE,
            hint="give a local Hugging Face folder; nothing is downloaded",
        )
    _config(folder)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        raise DataError(
            f"the model folder {folder} has no tokenizer (looked for {', '.join(_TOKENIZER_FILES)})",
            where=_WHERE,
            hint="save it there: tokenizer.save_pretrained(folder)",
        )
    _check_weights(folder)
    return folder


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise DataError(
            f"the model folder {folder} has no config.json",
            where=_WHERE,
            hint="save it there: model.save_pretrained(folder)",
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}", where=_WHERE, hint="save the model again") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise DataError(f"{file} names no model_type", where=_WHERE, hint="save the model again with save_pretrained")
    return config


def _check_weights(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"the index of the weights {index} is damaged: {error}", where=_WHERE, hint="copy the file again"
            ) from None
        absent = sorted(named - {f.name for f in files})
        if absent:
            raise DataError(f"weight files are missing: {', '.join(absent)}", where=str(folder), hint="copy them again")
    if not files:
        raise DataError(
            f"the model folder {folder} has no .safetensors weights",
            where=_WHERE,
            hint="save it with model.save_pretrained(folder); pickled .bin weights are not read",
        )
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"the weight file {file} is truncated or damaged: {error}", where=_WHERE, hint="copy the file again"
            ) from None


def load_tokenizer(path: str | None) -> Any:
    """The tokenizer of a model folder.

    Raises:
        DataError: see `model_folder`, or the files cannot be read.
    """
    from transformers import AutoTokenizer

    folder = model_folder(path)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        raise DataError(
            f"the tokenizer in {folder} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0]}",
            where=_WHERE,
            hint="save it again: tokenizer.save_pretrained(folder)",
        ) from None


def load_model(path: str | None, *, device: str = "cpu") -> Any:
    """A causal LM in eval mode, in the dtype it was saved in.

    Args:
        path: local folder; None for the small LM that ships with tian.
        device: torch device name.

    Raises:
        DataError: see `model_folder`; weights that do not belong to the config.
        UnsupportedModel: an architecture `tian.hf.attach` cannot serve, or a sink in its softmax that cannot be honoured.
        NoDevice: the device is not present.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tian.hf.families import check_name, family_of
    from tian.hf.sinks import restore_sinks

    folder = model_folder(path)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind = _config(folder)["model_type"]
    check_name(kind)
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise NoDevice(
            f"the device {device!r} is not available: {str(error).splitlines()[0]}",
            where="device",
            hint="set device=cpu",
        ) from None
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype="auto", output_loading_info=True
        )
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        raise DataError(
            f"the model in {folder} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0]}",
            where=_WHERE,
            hint="save it again: model.save_pretrained(folder)",
        ) from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise DataError(
            f"the weights lack {len(missing)} tensors the config asks for, e.g. {missing[0]}",
            where=str(folder),
            hint="use the config.json that was saved with these weights",
        )
    family_of(model)
    restore_sinks(model, folder)
    return model.eval().to(target)
