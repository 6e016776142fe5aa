"""The demo as a stranger sees it: one command, one JSON object, exit status 0; and written on public names only."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import autolink
from autolink import demo

PUBLIC_MODULES = {
    "autolink",
    "autolink.trust",
    "autolink.identity",
    "autolink.errors",
    "autolink.testing",
    "autolink.demo",
}


def test_the_demo_prints_one_object_and_all_went_as_it_should():
    command = [sys.executable, "-m", "autolink", "demo", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["ok"] is True
    assert seen["tls"] == {"version": "TLSv1.3", "group": "X25519MLKEM768"}
    assert seen["exchanged"] == seen["verified"] > 0
    kinds = ("impostor", "expired", "unknown_issuer", "tampered", "replayed", "wrong_recipient")
    assert seen["refused"] == dict.fromkeys(kinds, 1)
    assert seen["processes"] == 9
    assert result.stderr == ""


def test_the_demo_uses_public_names_only():
    for path in Path(demo.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autolink"):
                module = node.module or ""
                assert module in PUBLIC_MODULES or module.startswith("autolink.demo."), (
                    f"{path.name} imports {module}"
                )
                assert not [alias.name for alias in node.names if alias.name.startswith("_")]
            if isinstance(node, ast.Attribute):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                own = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert not private or own, f"{path.name} uses {node.attr}"


def test_every_public_name_is_exported_once_and_explicitly():
    """`from x import Y as Y` for each, so that type checkers see it and the module's names are the list."""
    names = [name for name in vars(autolink) if not name.startswith("_")]
    imported = [
        alias.asname
        for node in ast.parse(Path(autolink.__file__).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert None not in imported
    assert len(imported) == len(set(imported))
    modules = {name for name in names if type(getattr(autolink, name)) is type(autolink)}
    assert set(names) - modules == {name for name in imported if name and not name.startswith("_")}
