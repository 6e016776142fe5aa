"""The demo as a stranger sees it: one command, one JSON object, exit status 0; and written on public names only."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from autolink import demo

PUBLIC_MODULES = {
    "autolink",
    "autolink.trust",
    "autolink.identity",
    "autolink.errors",
    "autolink.registry",
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
    assert seen["processes"] == 10
    assert seen["registry"] == {"registered": 4, "proofs_verified": 5}  # the fifth is the revocation's
    assert seen["revocation"]["reconnect_refused"] is True
    assert seen["revocation"]["link_closed_ms"] >= 0
    assert result.stderr == ""


def test_the_demo_needs_no_extra():
    """What the registry's public side takes is not even looked for."""
    extra = ("starlette", "h11", "httpx")
    script = f"import sys; sys.modules.update(dict.fromkeys({extra})); import autolink.demo.cast, autolink.demo.launcher"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
