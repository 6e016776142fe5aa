"""The private parts of pyOpenSSL that this package leans on are there, and are used in one file only."""

import ast
from pathlib import Path

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

import autolink
from autolink.transport import _openssl, client_context, server_context


@pytest.mark.parametrize("symbol", _openssl.SYMBOLS)
def test_rule_1_the_private_symbol_exists(symbol):
    assert hasattr(lib, symbol)


def test_rule_1_the_list_of_private_symbols_is_complete():
    tree = ast.parse(Path(_openssl.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_lib"
    }
    assert used - {"X509_V_OK"} == set(_openssl.SYMBOLS)


def test_rule_1_private_parts_of_pyopenssl_are_used_in_one_file_only():
    for path in Path(autolink.__file__).parent.rglob("*.py"):
        if path == Path(_openssl.__file__):
            continue
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & {
            "_lib",
            "_ffi",
            "_ssl",
            "_from_ssl",
            "_into_ssl",
            "_context",
            "_verify_callback",
        }, path
        assert "OpenSSL._util" not in modules, path


def test_the_attributes_of_pyopenssl_that_have_no_name_in_public_are_there(me):
    connection = SSL.Connection(client_context(me), None)
    for name in ("_ssl", "_into_ssl", "_from_ssl", "_socket", "_verify_callback", "_app_data"):
        assert name in vars(connection), name
    assert callable(connection._raise_ssl_error)
    for name in ("_context", "_verify_callback"):
        assert name in vars(server_context(me)), name


def test_a_context_that_a_configuration_file_has_spoilt_is_refused(me, monkeypatch):
    """OpenSSL lets us add options and not take them back."""
    from autolink.errors import UsageError

    monkeypatch.setattr(SSL.Context, "set_options", lambda _self, _options: SSL.OP_IGNORE_UNEXPECTED_EOF)
    with pytest.raises(UsageError, match="OPENSSL_CONF"):
        server_context(me)


def test_an_openssl_without_the_post_quantum_group_is_refused(me, monkeypatch):
    monkeypatch.setattr(_openssl, "GROUPS", b"no-such-group")
    with pytest.raises(NotImplementedError, match="X25519MLKEM768"):
        client_context(me)
