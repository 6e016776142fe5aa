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


def imported_layers(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("autolink.")}


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
