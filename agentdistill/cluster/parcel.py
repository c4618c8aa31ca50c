"""Objects as bytes for another process, in which a module, such as a teacher's output head, is sent once and then named."""

from __future__ import annotations

import io
import itertools
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agentdistill.cluster.arrays import array, tensor


@dataclass(slots=True)
class _Sent:
    """A module that the other side has, as its weights were."""

    module: Callable[[], nn.Module | None]
    state: tuple[int, ...]
    name: int


class Packer:
    """The sender's side, one for each receiver.

    A module is sent again only when its weights have changed, which torch counts, and forgotten over there when it is gone
    here. Tensors arrive on the receiver's device, and views without what lies beside them.
    """

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}
        self._names = itertools.count()

    def pack(self, value: Any) -> bytes:
        """What `Unpacker.unpack` reads."""
        new: dict[int, bytes] = {}
        gone = [self._sent.pop(key).name for key, sent in list(self._sent.items()) if sent.module() is None]

        def name(module: nn.Module) -> int:
            state = tuple(tensor._version for tensor in module.state_dict(keep_vars=True).values())
            sent = self._sent.get(id(module))
            if sent is None or sent.module() is not module or sent.state != state:
                if sent is not None:
                    gone.append(sent.name)
                sent = self._sent[id(module)] = _Sent(weakref.ref(module), state, next(self._names))
                new[sent.name] = pickled(module)
            return sent.name

        body = pickled(value, name)
        return pickle.dumps((gone, new, body), protocol=5)


class Unpacker:
    """The receiver's side.

    Args:
        device: where tensors go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._modules: dict[int, nn.Module] = {}

    def unpack(self, parcel: bytes) -> Any:
        """What was packed."""
        gone, new, body = pickle.loads(parcel)
        for name in gone:
            self._modules.pop(name, None)
        for name, packed in new.items():
            self._modules[name] = self._read(packed)
        return self._read(body)

    def _read(self, packed: bytes) -> Any:
        return _Reader(io.BytesIO(packed), self._device, self._modules).load()


def pickled(value: Any, name: Callable[[nn.Module], int] | None = None) -> bytes:
    """An object with its tensors as arrays, for `unpickled`; those without content (`meta`) stay what they are.

    Args:
        name: of a module that is not sent along.
    """
    buffer = io.BytesIO()
    _Writer(buffer, name).dump(value)
    return buffer.getvalue()


def unpickled(packed: bytes) -> Any:
    """What was pickled, on the CPU."""
    return _Reader(io.BytesIO(packed), torch.device("cpu"), {}).load()


class _Writer(pickle.Pickler):
    """Writes modules as names, where they have any, and tensors as plain bytes."""

    def __init__(self, buffer: io.BytesIO, name: Callable[[nn.Module], int] | None) -> None:
        super().__init__(buffer, protocol=5)
        self._name = name

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, nn.Module) and self._name is not None:
            return "module", self._name(value)
        if type(value) in (torch.Tensor, nn.Parameter) and not value.is_meta:
            return "tensor", array(value), isinstance(value, nn.Parameter), value.requires_grad
        return None


class _Reader(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, device: torch.device, modules: dict[int, nn.Module]) -> None:
        super().__init__(buffer)
        self._device, self._modules = device, modules

    def persistent_load(self, what: tuple[Any, ...]) -> Any:
        kind, value, *about = what
        if kind == "module":
            return self._modules[value]
        parameter, trained = about
        own = tensor(value).to(self._device, copy=True)
        return nn.Parameter(own, trained) if parameter else own.requires_grad_(trained)
