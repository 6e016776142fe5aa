"""AutoId and PeerId: upstream's derivation byte for byte, one text form each, and no comparison of bare ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolink.errors import IdentityError
from autolink.identity import BOUND, AutoId, PeerId, key_authority

ROOT = "2d415a2ed29e118a7918262c99b253556fa57e2e7598208ca0975b7456316360"
LEAF = "83aedb0c3260eb3b37076b5a9aff4b986bea64759ebce46bfbf2155611c9f6c9"
FINGERPRINT = key_authority(bytes(32))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Test"], "8d2143d76615c515b5cc88fa7806aef268edeea87571c8f8b21a19f77b9993ba"),
        (["Test", "child"], "b273167fb0c55e2df1fcd5c44fcf90e497bd826e2eb4be2f167ff1c46b4d686d"),
        (["Vedhavyas Sinhareddi"], "8d66f57e35d26fb7a81de8eb274ebd9e672288dcbf3f7313335e8feeec3e3bf9"),
        (
            ["Vedhavyas Sinhareddi", "Vedhavyas Singareddi Leaf"],
            "5c549b317b0f47e81894a9374f244f1cdd062c4a436071d8629f2c69509861a1",
        ),
        (["issuer"], ROOT),
        (["issuer", "Test"], LEAF),
        (
            ["issuer", "Test", "GrandChild"],
            "dbf8438f29ff75586ffcfae8757002ff533e4a89ba9a5dd834d8222386b07857",
        ),
    ],
)
def test_ids_are_those_of_upstreams_registry(names: list[str], expected: str) -> None:
    """The first four are asserted or stored by upstream itself, the rest follow from its published names."""
    assert AutoId.derive_path(names)[-1] == AutoId.parse(expected)


def test_a_leafs_id_is_not_the_hash_of_its_issuers_hexadecimal_digits() -> None:
    """Both upstream SDKs hash the issuer's id as text, so their ids match no registry's."""
    issuer = AutoId.parse(ROOT)
    assert AutoId.derive("Test", issuer) != AutoId.derive(issuer.hex + "Test")


def test_an_id_has_one_text_form_and_the_uri() -> None:
    auto_id = AutoId.parse(ROOT)
    assert str(auto_id) == auto_id.hex == ROOT
    assert auto_id.uri == f"autoid:auto:{ROOT}"
    assert AutoId.parse(auto_id.uri) == auto_id
    assert (auto_id.short, repr(auto_id)) == ("2d415a2e…", "AutoId(2d415a2e…)")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ROOT[:-1],
        ROOT + "0",
        ROOT.upper(),
        "0x" + ROOT[2:],
        " " + ROOT[1:],
        "autoid:auto:",
        "\x1b[2J" + "0" * 60,
        "é" * 64,
    ],
)
def test_any_other_text_is_no_id(text: str) -> None:
    with pytest.raises(IdentityError) as raised:
        AutoId.parse(text)
    assert "\x1b" not in str(raised.value)


def test_an_id_is_32_bytes() -> None:
    with pytest.raises(IdentityError, match="32 bytes"):
        AutoId(b"short")


@pytest.mark.parametrize(
    ("peer_id", "text", "principal"),
    [
        (PeerId(AutoId.parse(ROOT), BOUND), ROOT, ROOT),
        (PeerId(AutoId.parse(ROOT), FINGERPRINT), f"{ROOT}?key={FINGERPRINT}", ROOT),
        (PeerId(None, FINGERPRINT), f"key:{FINGERPRINT}", f"key:{FINGERPRINT}"),
    ],
)
def test_a_peer_id_is_read_back_from_what_it_writes(peer_id: PeerId, text: str, principal: str) -> None:
    assert str(peer_id) == text
    assert peer_id.principal == principal
    assert PeerId.parse(text) == peer_id
    assert repr(peer_id) == f"PeerId({text})"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key:",
        "key:bound",
        f"{ROOT}?key=",
        f"{ROOT}?key=bound",
        f"{ROOT}?key=sha256:00",
        f"{ROOT}?key={ROOT}",
        f"?key={FINGERPRINT}",
    ],
)
def test_any_other_text_is_no_peer_id(text: str) -> None:
    with pytest.raises(IdentityError):
        PeerId.parse(text)


@given(st.text(max_size=200))
def test_random_text_is_refused_with_our_error_and_no_other(text: str) -> None:
    for parse in (AutoId.parse, PeerId.parse):
        with pytest.raises(IdentityError):
            parse(text)


def test_rule_21_one_auto_id_under_two_authorities_is_two_peers() -> None:
    """A plain AutoId hashes names only, so anybody can carry it; the authority tells them apart."""
    auto_id = AutoId.parse(ROOT)
    peers = {PeerId(auto_id, BOUND), PeerId(auto_id, FINGERPRINT), PeerId(auto_id, key_authority(b"\1" * 32))}
    assert len(peers) == 3
    assert PeerId(auto_id, BOUND) != auto_id
    assert sorted(peers) == sorted(peers, key=str)


def test_rule_23_a_key_without_a_name_is_a_principal_of_its_own_kind() -> None:
    stranger = PeerId(None, FINGERPRINT)
    assert stranger.principal.startswith("key:sha256:")
    with pytest.raises(IdentityError, match="never 'bound'"):
        PeerId(None, BOUND)
