"""The public surface is a list: each package's `__all__` is what it imports to show, no more and no less."""

import ast
import importlib
from pathlib import Path

import pytest

import autolink

PACKAGES = [
    "autolink",
    *(
        f"autolink.{name}"
        for name in (
            "agent",
            "identity",
            "testing",
            "demo",
            "messages",
            "registry",
            "registry.log",
            "transport",
        )
    ),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_that_a_package_imports_is_shown_and_has_one_home(name):
    package = importlib.import_module(name)
    imported = [
        alias.asname or alias.name
        for node in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == sorted(package.__all__)
    assert len(set(imported)) == len(imported)


def test_every_public_name_has_a_docstring_of_its_own():
    for name in set(autolink.__all__) - {"__version__", "ANYONE_TRUSTED"}:
        assert (getattr(autolink, name).__doc__ or "").strip(), name
