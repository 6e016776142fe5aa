"""Which common names exist, and how a bound one commits to its key."""

import base64
import hashlib
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolink.errors import IdentityError
from autolink.identity.autoid import AutoId
from autolink.identity.names import (
    bound_suffix,
    check_common_name,
    is_bound_to,
    make_bound,
    show_name,
    split_bound,
)

SPKI, NEXT = b"an spki", bytes(range(32))
BOUND_NAME = make_bound("acme", SPKI, NEXT)


@pytest.mark.parametrize(
    "name", ["a", "acme", "Vedhavyas Sinhareddi", "Žofie", "東京", "x" * 32, "é" * 16, BOUND_NAME]
)
def test_an_allowed_self_issued_name_passes(name: str) -> None:
    check_common_name(name, issued=False)
    check_common_name(name, issued=True)


HOSTILE = {
    "empty": "",
    "NUL": "acme\0",
    "escape sequence": "\x1b[2Jacme",
    "line break": "acme\r\nroot",
    "C1 control": "acme\x9b2J",
    "bidirectional override": "acme\u202egro",
    "bidirectional isolate": "acme\u2066x",
    "zero width": "ac\u200bme",
    "soft hyphen": "ac\u00adme",
    "byte order mark": "\ufeffacme",
    "tag character": "acme\U000e0041",
    "line separator": "acme\u2028",
    "no-break space": "acme\u00a0inc",
    "unassigned": "acme\u0378",
    "of Unicode 15": "acme\U00011f02",
    "of Unicode 18": "acme\U000323b0",
    "private use": "acme\ue000",
    "lone surrogate": "acme\ud800",
    "not NFC": "e\u0301",
    "compatibility of another form": "\u212b",
    "too long": "x" * 65,
    "too long in bytes": "é" * 33,
    "enormous": "x" * 1_000_000,
}


@pytest.mark.parametrize("issued", [True, False])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_rule_24_a_hostile_name_is_no_name(name: str, issued: bool) -> None:
    """Refused whoever issued it, and shown without harm in the error."""
    with pytest.raises(IdentityError) as raised:
        check_common_name(name, issued=issued)
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 250


def test_a_name_is_allowed_by_the_characters_of_unicode_14_whatever_this_python_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or an audit with an older Python would convict a registry with a newer one."""
    here = [one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(one)[0] not in "CZ"]
    assert sum(map(_is_allowed, here)) == 143_397
    monkeypatch.setattr(unicodedata, "category", lambda character: "Lo")
    assert not any(map(_is_allowed, "\u088f\U00011f02\U0001e6c0\U000323b0"))
    assert all(map(_is_allowed, "\u088e\u0898\U0001e100\U0003134a"))


def _is_allowed(character: str) -> bool:
    try:
        check_common_name(character, issued=True)
    except IdentityError:
        return False
    return True


def test_rule_24_a_plain_root_can_never_have_the_id_of_an_issued_name() -> None:
    """Without the length rule a root named issuer_id ‖ "x" has the id of "x" below that issuer."""
    issuer = AutoId.derive("issuer")
    stolen = issuer.value + b"x"
    assert AutoId.derive(stolen) == AutoId.derive("x", issuer)
    assert len(stolen) == 33
    with pytest.raises(IdentityError, match="longer than 32 bytes"):
        check_common_name("p" * 33, issued=False)
    check_common_name("p" * 33, issued=True)


@pytest.mark.parametrize(
    "name",
    [
        "~",
        "acme~",
        "~" + BOUND_NAME[5:],
        BOUND_NAME[:-1],
        BOUND_NAME + "a",
        BOUND_NAME.upper(),
        "a~b~" + "c" * 26,
        "a b~" + "c" * 26,
        "acme~" + "1" * 26,
    ],
)
def test_rule_24_a_self_issued_name_with_a_tilde_is_bound_or_no_name(name: str) -> None:
    assert split_bound(name) is None
    with pytest.raises(IdentityError):
        check_common_name(name, issued=False)


def test_rule_21_a_bound_name_commits_to_its_key_and_the_next() -> None:
    """The suffix is recomputed here from the rule's own words."""
    digest = hashlib.blake2b(b"autolink/1 bound-name\0" + SPKI + NEXT, digest_size=32).digest()
    assert bound_suffix(SPKI, NEXT) == base64.b32encode(digest)[:26].decode().lower()
    assert split_bound(BOUND_NAME) == ("acme", bound_suffix(SPKI, NEXT))
    assert is_bound_to(BOUND_NAME, SPKI, NEXT)
    assert not is_bound_to(BOUND_NAME, SPKI + b"x", NEXT)
    assert not is_bound_to(BOUND_NAME, SPKI, bytes(32))
    assert not is_bound_to(BOUND_NAME, SPKI, None)
    assert not is_bound_to("acme", SPKI, NEXT)


@pytest.mark.parametrize("label", ["", "Acme", "a" * 33, "a b", "a~b", "ä", "a.b", "a_b"])
def test_rule_21_a_label_is_1_to_32_of_lower_case_letters_digits_and_hyphens(label: str) -> None:
    with pytest.raises(IdentityError, match="label"):
        make_bound(label, SPKI, NEXT)


def test_a_next_keys_hash_has_32_bytes() -> None:
    """Otherwise bytes could move between key and hash without changing the name."""
    with pytest.raises(IdentityError, match="32 bytes"):
        bound_suffix(SPKI, NEXT + b"x")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("acme", "acme"),
        (BOUND_NAME, f"acme~{BOUND_NAME[5:9]}…"),
        ("東京", "東京"),
        ("\u0430cme", "\u0430cme (U+0430 U+0063 U+006D U+0065)"),
        ("ac\u034fme", "ac\\u{34f}me (U+0061 U+0063 U+034F U+006D U+0065)"),
        ("a\x1b[2J", "a\\u{1b}[2J"),
        ("globex/echo", "globex\\u{2f}echo"),  # or it would look like globex's echo
    ],
)
def test_rule_24_a_mixed_script_name_is_shown_with_its_code_points(name: str, shown: str) -> None:
    assert show_name(name) == shown


@given(st.text(max_size=100), st.booleans())
def test_a_name_either_passes_or_raises_our_error_and_showing_it_is_always_harmless(
    name: str, issued: bool
) -> None:
    try:
        check_common_name(name, issued=issued)
    except IdentityError:
        pass
    else:
        assert 1 <= len(name.encode()) <= 64
    assert "\x1b" not in show_name(name)
