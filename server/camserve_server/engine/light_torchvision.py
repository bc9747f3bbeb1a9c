"""Torchvision without what its classifiers do not use, which then is read by whoever uses it."""

from __future__ import annotations

import sys
import threading
from functools import cached_property, partial
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

# What only detectors and the export to ONNX use brings along torch's compiler: 150 MB, and seconds.
_LATER = ("torchvision.ops.roi_align", "torchvision.ops._register_onnx_ops")
_importing = threading.Lock()


class _LaterModule(ModuleType):
    """A module that is read when something of it is used; what is asked for before it is `known` is used later."""

    known = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole, name) if self.known else partial(self._call, name)

    @cached_property
    def whole(self) -> ModuleType:
        """The module itself."""
        parent = import_module(self.__name__.rpartition(".")[0])
        spec = PathFinder.find_spec(self.__name__, parent.__path__)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(self.__name__)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _call(self, name: str, *args: object, **keywords: object) -> Any:
        # What registers is called while torchvision is imported, for an export that nobody asks for.
        return None if name.startswith("_register") else getattr(self.whole, name)(*args, **keywords)


def light_models() -> Any:
    """Returns `torchvision.models`."""
    with _importing:
        if "torchvision" not in sys.modules:
            _import_lightly()
    from torchvision import models

    return models


def _import_lightly() -> None:
    later = {name: _LaterModule(name) for name in _LATER}
    sys.modules.update(later)
    from torchvision import ops

    for module in later.values():
        module.known = True
    # Functions are called later as they are; a class is more than what is called.
    classes = [name for name, value in vars(ops).items() if isinstance(value, partial) and name[0].isupper()]
    for name in classes:
        delattr(ops, name)

    def get_class(name: str) -> Any:
        if name not in classes:
            raise AttributeError(f"module {ops.__name__!r} has no attribute {name!r}")
        return getattr(later[_LATER[0]], name)

    ops.__getattr__ = get_class
