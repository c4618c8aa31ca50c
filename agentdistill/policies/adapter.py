"""LoRA (arXiv 2106.09685): a model's own weights stand still, and small matrices beside its linear layers learn.

One set of weights in memory serves several models: with the adapter that is trained, with another one, or with none. Which
one computes is decided for each pass (`CausalLM.active`), and between passes it is always the trained one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from agentdistill.durable import replace
from agentdistill.errors import UserError, nearest
from agentdistill.policies.identity import weights
from agentdistill.policies.model import CausalLM

ALL_LINEAR = "all-linear"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"
"""Beside the adapter: which model it belongs to, as a path from the folder where that is the run's own, and its digest."""
_TRAINED, _AVERAGE = "default", "average"
_PREFIX = "base_model.model."  # peft's own files have it before every name
INSTALL = "pip install 'agentdistill[lora]'"


@dataclass(slots=True)
class Adapted(CausalLM):
    """A model that computes with an adapter, or (`adapter` None) as it is without; its weights are shared.

    Attributes:
        base: reference of the model below it, for whoever loads the adapter.
        adapter: name of the adapter within `model`.
    """

    base: str = ""
    adapter: str | None = _TRAINED

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """See `CausalLM.active`."""
        if self.adapter == _TRAINED:
            yield
            return
        layers = [module for _, module in _tuned(self.model)]
        try:
            for layer in layers:
                if self.adapter is None:
                    layer.enable_adapters(False)
                else:
                    layer.set_adapter(self.adapter)
            yield
        finally:
            for layer in layers:
                if self.adapter is None:
                    layer.enable_adapters(True)
                else:
                    layer.set_adapter(_TRAINED)

    def own(self) -> dict[str, torch.Tensor]:
        """The adapter's matrices, by the same names whichever adapter it is; none without one."""
        return {plain: p for plain, p, adapter in self._named() if adapter is not None and adapter == self.adapter}

    def named_weights(self) -> dict[str, torch.Tensor]:
        """Without an adapter, what the model below has, by its names there."""
        return {plain: p for plain, p, adapter in self._named() if adapter in (None, self.adapter)}

    def without(self, name: str) -> Adapted:
        """The model below, which is the student as it was when the adapter was put on; no weight is copied."""
        return Adapted(self.model, self.tokenizer, name, self.base, None)

    def twin(self, name: str) -> Adapted:
        """The same model under a copy of the adapter."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's, that there are several adapters now
            self.model.add_adapter(self.model.peft_config[_TRAINED], _AVERAGE)
        self.model.set_adapter(_TRAINED)
        other = Adapted(self.model, self.tokenizer, name, self.base, _AVERAGE)
        with torch.no_grad():
            for key, value in other.own().items():
                value.copy_(self.own()[key])
        return other

    def merged(self) -> CausalLM:
        """An ordinary model, the adapter added to its weights. This one is used up."""
        for name, layer in _tuned(self.model):
            layer.merge(safe_merge=True)
            self.model.set_submodule(name, layer.get_base_layer())
        del self.model.peft_config
        self.model._hf_peft_config_loaded = False
        self.model.requires_grad_(True)
        return CausalLM(self.model, self.tokenizer, self.name)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter alone into a folder, as peft has it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's, that it cannot see whether the base's vocabulary was changed: it was not
            self.model.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """Write the adapter, the tokenizer and whose adapter it is into a folder; see `CausalLM.save`."""
        self.save_adapter(folder)
        self.tokenizer.save_pretrained(folder)
        about = {"base": _from(folder, self.base), "weights": weights(self.without(self.name))}
        replace(folder / BASE, json.dumps(about, indent=1).encode())

    def _named(self) -> Iterator[tuple[str, torch.Tensor, str | None]]:
        """Every parameter with its name in a plain model, or with an adapter's name cut out of it, and that adapter's name."""
        for name, parameter in self.model.named_parameters():
            for adapter in self.model.peft_config:
                if "lora_" in name and f".{adapter}." in name:
                    yield name.replace(f".{adapter}.", ".", 1), parameter, adapter
                    break
            else:
                yield name.replace(".base_layer.", "."), parameter, None


def _from(folder: Path, base: str) -> str:
    """A model's reference for a file in `folder`: relative where both are of one run, which may be moved as a whole."""
    path = Path(base).expanduser()
    if not path.is_dir():
        return base
    whole, here = path.resolve(), folder.resolve()
    return os.path.relpath(whole, here) if whole.is_relative_to(here.parent) else str(whole)


def _tuned(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """Every layer that has adapters, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def require_peft() -> None:
    """Refuse LoRA where its library is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"LoRA adapters need peft: {INSTALL}")


def chosen(lm: CausalLM, targets: str | Sequence[str]) -> list[str]:
    """The linear layers that get an adapter, by the last parts of their names.

    Args:
        targets: `all-linear`, or names such as `q_proj` or `layers.0.self_attn.q_proj`.

    Raises:
        UserError: for a name that no linear layer has (the nearest one is named), and for the output head.
    """
    head = lm.head
    there = [name for name, module in lm.model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    heads = [name for name, module in lm.model.named_modules() if module is head]
    inner = [name for name in there if name not in heads]
    kinds = sorted({name.rpartition(".")[2] for name in inner})
    if targets == ALL_LINEAR:
        return kinds
    for target in [targets] if isinstance(targets, str) else targets:
        if any(_ends(name, target) for name in heads):
            raise UserError(
                f"student.lora.targets names '{target}', the output head of model '{lm.name}', which adapters leave as it is; "
                f"drop it, or write {ALL_LINEAR} for every other linear layer"
            )
        if not any(_ends(name, target) for name in inner):
            raise UserError(
                f"student.lora.targets names '{target}', and model '{lm.name}' has no such linear layer"
                f"{nearest(target, kinds)}; it has {', '.join(kinds)}"
            )
    return sorted([targets] if isinstance(targets, str) else targets)


def _ends(name: str, part: str) -> bool:
    return name == part or name.endswith(f".{part}")


def attach(lm: CausalLM, *, r: int, alpha: float, targets: str | Sequence[str], seed: int, base: str) -> Adapted:
    """Put a new adapter on a model; it changes nothing before it is trained, since its second matrices are 0.

    Only the adapter has gradients from then on, and `lm` computes with it too.

    Args:
        r: rank; each layer `W` of shape `[out, in]` gets `B·A·alpha/r`, `A` `[r, in]` and `B` `[out, r]`.
        targets: see `chosen`.
        seed: of the first matrices.
        base: reference of the model, for whoever loads the adapter.

    Raises:
        UserError: see `chosen` and `require_peft`.
    """
    require_peft()
    from peft import LoraConfig

    config = LoraConfig(
        r=r, lora_alpha=alpha, target_modules=chosen(lm, targets), task_type="CAUSAL_LM",  # type: ignore[arg-type]
        base_model_name_or_path=str(Path(base).resolve()) if Path(base).is_dir() else base,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lm.model.add_adapter(config, _TRAINED)
    return Adapted(lm.model, lm.tokenizer, lm.name, base)


def is_adapter(ref: str) -> bool:
    """Whether the reference is a folder with an adapter, and not one with a whole model."""
    try:
        path = Path(ref).expanduser()
        return (path / CONFIG).is_file() and not (path / "config.json").is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def base_of(ref: str) -> str:
    """Reference of the model that the adapter in a folder belongs to.

    Raises:
        UserError: when the folder does not say, or says that it is another adapter.
    """
    folder = Path(ref).expanduser()
    about = _about(folder)
    base = str(about.get("base") or _read(folder / CONFIG).get("base_model_name_or_path") or "")
    if base and about and not Path(base).is_absolute() and (folder / base).is_dir():
        base = os.path.normpath(folder / base)
    if not base:
        raise UserError(f"adapter '{ref}' does not say which model it belongs to (no {BASE}, no base_model_name_or_path)")
    if is_adapter(base):
        raise UserError(f"adapter '{ref}' belongs to '{base}', which is an adapter itself; merge that one first")
    return base


def put_on(lm: CausalLM, ref: str) -> Adapted:
    """The model with the adapter of a folder.

    Raises:
        UserError: when the adapter is damaged, of another kind or of another model.
    """
    require_peft()
    from peft import LoraConfig, PeftConfig, set_peft_model_state_dict

    folder = Path(ref).expanduser()
    digest = _about(folder).get("weights")
    if digest is not None and digest != weights(lm):
        raise UserError(
            f"adapter '{ref}' was trained on model '{lm.name}', whose weights are not what they were then; bring those back"
        )
    base = lm.name
    try:
        config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
        if not isinstance(config, LoraConfig):
            raise UserError(f"adapter '{ref}' is of kind {config.peft_type}; only LoRA adapters are supported")
        if config.modules_to_save:
            named = ", ".join(config.modules_to_save)
            raise UserError(f"adapter '{ref}' also replaces whole modules ({named}); merge it with peft, and name the result")
        saved = {name.removeprefix(_PREFIX): tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        lm.model.add_adapter(config, _TRAINED)
        adapted = Adapted(lm.model, lm.tokenizer, ref, base)
        differing = sorted(saved.keys() ^ adapted.own().keys())
        if differing:
            raise UserError(f"adapter '{ref}' is not of model '{base}': they differ in '{differing[0]}'")
        set_peft_model_state_dict(lm.model, saved, _TRAINED)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"adapter '{ref}' could not be loaded onto model '{base}': {reason}") from error
    return adapted


def _about(folder: Path) -> dict[str, Any]:
    return _read(folder / BASE) if (folder / BASE).is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error
