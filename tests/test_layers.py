"""The import direction of design and docs, read from the source: a lower layer never imports a higher one."""

import ast
from pathlib import Path

import pytest

import autolink

PACKAGE = Path(autolink.__file__).resolve().parent

GROUND = {"errors", "limits", "codec", "version"}
MAY_IMPORT = {
    "limits": set(),
    "version": set(),
    "errors": {"limits"},
    "codec": {"errors", "limits"},
    "loop": set(),
    "identity": GROUND,
    "trust": GROUND | {"identity"},
    "messages": GROUND | {"identity", "trust"},
    "protocol": GROUND,
    "transport": GROUND | {"identity", "loop"},
    "agent": GROUND | {"identity", "trust", "messages", "protocol", "transport", "loop"},
    "registry": GROUND | {"identity", "trust", "messages", "protocol", "transport", "agent", "loop"},
    "testing": GROUND | {"identity", "trust", "messages", "protocol", "transport", "agent"},
}
ABOVE = {"demo", "cli", "__init__", "__main__"}
"""May import everything below them; `demo` only public names, see test_demo."""


def layers() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imported_names(path: Path) -> set[str]:
    """Dotted: modules, and what is imported from one with the module's name before it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_layers(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_names(path) if name.startswith("autolink.")}


def test_every_module_belongs_to_a_layer():
    assert set(layers()) == set(MAY_IMPORT) | ABOVE


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_a_layer_imports_only_what_is_below_it(layer):
    for path in layers()[layer]:
        above = imported_layers(path) - MAY_IMPORT[layer] - {layer}
        assert not above, f"{path.relative_to(PACKAGE)} imports {above}"


def test_a_log_is_pure():
    """`registry.log` knows no network, files, clock, chance or trust: only bytes, hashes and keys."""
    allowed = {"base64", "collections.abc", "dataclasses", "hashlib", "struct", "typing"}
    for path in sorted((PACKAGE / "registry" / "log").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and not node.module.startswith("cryptography."):
                below = node.module in allowed or node.module.split(".")[0] == "autolink"
                assert below, f"{path} imports {node.module}"
        assert imported_layers(path) <= {"errors", "limits", "identity", "messages", "registry"}, path


@pytest.mark.parametrize("module", ["state", "effects", "ledger", "records", "entries"])
def test_what_follows_from_an_entry_is_pure(module):
    """`apply` and what it is made of know no network, files or clock, so the server, an audit and a test find the same.

    Besides its arguments `apply` looks at `MEMORY` alone, where the issuers on record are: facts about their bytes, which it
    finds again where they were forgotten. And the same bytes of a record are read once (`lru_cache`)."""
    path = PACKAGE / "registry" / f"{module}.py"
    allowed = {
        "collections.abc", "cryptography.x509", "dataclasses", "datetime", "enum", "functools", "hashlib", "typing", "zlib",
        *(f"autolink.{name}" for name in (
            "codec", "errors", "limits", "messages.instant", "messages.message.TIME_MAX",
            "identity.AutoId", "identity.Certificate", "identity.certificate", "identity.keys", "identity.names",
            "registry.effects", "registry.entries", "registry.ledger", "registry.records",
            "trust.issuers.MEMORY", "trust.presented.sound", "trust.presented.sound_issuers",
        )),
    }  # fmt: skip
    for name in imported_names(path):
        assert any(f"{name}.".startswith(f"{one}.") for one in allowed), f"{path} imports {name}"
    assert "datetime." not in path.read_text(), f"{path} asks for the time, which it is given"


def test_only_the_transport_and_the_keystore_touch_sockets_and_files():
    """Below `agent` nothing but `transport` imports socket, ssl or OpenSSL.SSL; trust's chain engine uses OpenSSL.crypto."""
    for layer in ("identity", "trust", "messages", "protocol"):
        for path in layers()[layer]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules = {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    modules = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
                else:
                    continue
                assert not modules & {"socket", "ssl", "OpenSSL.SSL", "anyio.abc.SocketStream"}, path
