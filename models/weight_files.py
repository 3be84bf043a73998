"""Weight files as they lie on disk: reads PyTorch and safetensors files without running their content,
copies a state dict into a module, and says what is wrong when either cannot be done."""

import argparse
import hashlib
import json
import os
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class CheckpointError(ValueError):
    """A checkpoint that is damaged, unsafe, or of another architecture than asked for."""


class Undrawn(TorchFunctionMode):
    """Inside, networks are made without the weights that torch, and they themselves, draw at random; for who is about
    to replace all of them: a ViT-B draws for three seconds."""

    _DRAWS = frozenset(
        (
            Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_,
            nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_,
        )
    )  # fmt: skip

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in self._DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@dataclass(frozen=True)
class WeightFile:
    """Content of a weight file: the state dict, and all else the file says (top-level keys)."""

    path: Path
    state: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def read_weight_file(path: str | Path) -> WeightFile:
    """Read a `.safetensors` file, or a PyTorch file with its state dict under `model` or at the top.

    Facts come from the other top-level keys; for safetensors from the file's metadata and from a
    JSON file of the same name beside it. PyTorch files are unpickled with `weights_only=True`; the
    one class allowed beyond tensors is `argparse.Namespace`, which upstream training code stores.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: damaged file, a file that would run code, or one without a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    state = content.pop("model", content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds no state dict, neither under the key 'model' nor at the top; "
            f"its keys: {sorted(map(str, content))[:8]}"
        )
    return WeightFile(path, state, {} if state is content else content)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    beside = path.with_suffix(".json")
    facts = _object(beside.read_text(), beside) if beside.is_file() else {}
    facts = {key: value for key, value in facts.items() if key.endswith("kwargs")}
    facts |= {
        key: _object(value, f"{path}: {key} of its metadata")
        for key, value in metadata.items()
        if key.endswith("kwargs")
    }
    return {**facts, "model": state}


def _object(text: str, source: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{source} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source} is no JSON object but a {type(content).__name__}")
    return content


def _read_pytorch(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words go on to advise what no caller of this can do, and nobody should.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        if named := re.search(r"GLOBAL (\S+)", reason):
            raise CheckpointError(
                f"{path} was refused: it names {named[1]}, which is not needed to store weights and could run code. If "
                "you trust the file, load it yourself and save its state dict alone into another"
            ) from error
        raise CheckpointError(f"{path} is damaged or no PyTorch file: {reason}") from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no PyTorch file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict with weights")
    return content


def write_safetensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a state dict as safetensors, aside first, then in place in one step.

    Raises:
        OSError: the disk is full, or what else the system has against it; what lay there before still does.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # Not by `save_file`, whose errors do not say in a form to rely on that the disk is full.
    content = save(tensors, metadata={"format": "pt", **(metadata or {})})
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:  # the system does not name the file that a write was for
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def load_state(module: nn.Module, state: dict[str, Tensor], source: str | Path, hint: str = "") -> None:
    """Copy `state` into `module`; every name and shape must agree.

    Args:
        source: where the state came from, for the message.
        hint: appended to the message.

    Raises:
        CheckpointError: names the first parameter, in the module's order, that differs.
    """
    if what := _first_difference(module, state):
        raise CheckpointError(f"{source} does not fit this {type(module).__name__}: {what}. {hint}".rstrip())
    module.load_state_dict(state)


def misfit(found: nn.Module, wanted: nn.Module) -> str | None:
    """Why `found` is another network than `wanted`: the first parameter that differs, with both shapes, and each
    option of their `config`; None when they are one, whatever their weights."""
    there, here = (dict[str, Any](vars(network)["config"]) for network in (found, wanted))
    options = [
        f"{key} is {there[key]} there and {here[key]} here" for key in here if there.get(key, here[key]) != here[key]
    ]
    return "; ".join(filter(None, [_first_difference(wanted, found.state_dict()), *options])) or None


def _first_difference(module: nn.Module, state: dict[str, Tensor]) -> str | None:
    """In the module's order."""
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            return f"it has no {name}, of shape {tuple(tensor.shape)} here"
        if state[name].shape != tensor.shape:
            return f"{name} has shape {tuple(state[name].shape)} there and {tuple(tensor.shape)} here"
    for name in state:
        if name not in expected:
            return f"it has {name}, of shape {tuple(state[name].shape)}, unknown here"
    return None


def sha256_of(path: str | Path) -> str:
    """Hex SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
