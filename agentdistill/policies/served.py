"""A model that is not in this process: what is known of it here."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoConfig, PreTrainedTokenizerBase

from agentdistill.errors import UserError
from agentdistill.policies import adapter
from agentdistill.policies.load import folder_of, is_tiny, load_tokenizer


@dataclass(slots=True)
class Served:
    """A model whose weights an engine loads itself, or a server holds.

    Attributes:
        tokenizer: its own, from its reference: vocabularies and templates are compared here.
        name: how logs and stored scores call it; its reference.
        context: longest sequence it takes, in tokens.
        vocab_size: width of its output head.
    """

    tokenizer: PreTrainedTokenizerBase
    name: str
    context: int
    vocab_size: int


def can_be_served(ref: str) -> bool:
    """Whether engines can load a reference without this process: a Transformers folder or a hub id, and no adapter."""
    return not is_tiny(ref) and not ref.startswith("pip:") and not adapter.is_adapter(ref)


def served(ref: str) -> Served:
    """What is known of a model without its weights.

    Raises:
        UserError: when the reference names nothing that can be found.
    """
    tokenizer = load_tokenizer(ref)
    folder = folder_of(ref)
    name, _, revision = ref.partition("@")
    try:
        config = AutoConfig.from_pretrained(folder or name, **({"revision": revision} if revision and not folder else {}))
    except (OSError, ValueError) as error:
        raise UserError(f"the config of model '{ref}' cannot be read: {' '.join(str(error).split())[:200]}") from error
    text = config.get_text_config()
    return Served(tokenizer, ref, int(getattr(text, "max_position_embeddings", 1 << 30)), int(text.vocab_size))
