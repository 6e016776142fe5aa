"""Who is compared: one module each."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from benchmarks.stacks.base import Stack


def _find() -> dict[str, Stack]:
    """Every module here that defines `STACK`. A package that one needs and that is not installed, it reports itself."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    stacks = [module.STACK for module in modules if hasattr(module, "STACK")]
    return {stack.name: stack for stack in sorted(stacks, key=lambda stack: (stack.name != OURS, stack.name))}


OURS: Final = "autolink"
STACKS: Final = _find()
"""By name, autolink first."""
