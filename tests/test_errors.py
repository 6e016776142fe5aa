"""What reaches a person, and what reaches a peer."""

import copy
import pickle
import unicodedata

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolink import errors, limits
from autolink.errors import CallError, Code, Reason, Refused, UsageError, display, no_pickle, wire_reason

fixed = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
        ("line\r\nforged: line", "line\\u{d}\\u{a}forged: line"),
        ("nul\0tail", "nul\\u{0}tail"),
        ("admin\u202egnp.exe", "admin\\u{202e}gnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u{200b}width\\u{feff}"),
        ("\x9b31m", "\\u{9b}31m"),
        ("line\u2028separator", "line\\u{2028}separator"),
        ("no\u00a0break", "no\\u{a0}break"),
        ("private \ue000", "private \\u{e000}"),
        ("unassigned \U000e0fff", "unassigned \\u{e0fff}"),
        ("lone \udc80", "lone \\u{dc80}"),
        ("tab\tdel\x7f", "tab\\u{9}del\\u{7f}"),
        ("acme\u3164\u2800\ufe0f", "acme\\u{3164}\\u{2800}\\u{fe0f}"),
        ("Ünïcödé 漢字 ok", "Ünïcödé 漢字 ok"),
        ("", ""),
    ],
    ids=range(15),
)
def test_rule_46_peer_strings_are_shown_without_what_a_terminal_or_a_log_would_obey(hostile, shown):
    """ESC, OSC, CR and LF, bidirectional and invisible characters become their code points; the rest stays."""
    assert display(hostile) == shown


@fixed
@given(st.text(alphabet=st.characters(), max_size=400), st.integers(1, 300))
def test_rule_46_whatever_comes_what_is_shown_is_short_and_inert(text, width):
    """At most `width` characters, all printable, encodable, on one line."""
    shown = display(text, width)
    assert len(shown) <= width
    assert all(character == " " or unicodedata.category(character)[0] not in "CZ" for character in shown)
    shown.encode()


def test_a_long_string_is_cut_before_it_is_looked_at():
    """A megabyte from a peer costs as little as two hundred characters, and one more character is visible."""
    assert display("x" * limits.DISPLAY) == "x" * limits.DISPLAY
    assert display("x" * limits.MIB) == "x" * (limits.DISPLAY - 1) + "…"


def test_a_peer_learns_facts_about_itself_and_nothing_of_our_policy():
    """The closed set of rule 18; everything else crosses the wire as `untrusted`."""
    told = {reason for reason in Reason if wire_reason(reason) is reason}
    assert {wire_reason(reason) for reason in set(Reason) - told} == {Reason.UNTRUSTED}
    assert told == {
        Reason.EXPIRED, Reason.NOT_YET_VALID, Reason.MALFORMED, Reason.REVOKED, Reason.WRONG_PEER,
        Reason.VERSION, Reason.BUSY, Reason.CLOCK_SKEW, Reason.FULL_HANDSHAKE_NEEDED, Reason.INTERNAL,
        Reason.UNTRUSTED,
    }  # fmt: skip


@pytest.mark.parametrize(("by", "text"), [("us", "we refused eve\\u{a}"), ("peer", "eve\\u{a} refused us")])
def test_a_refusal_says_who_refused_whom_and_why(by, text):
    """In one safe line, and as attributes."""
    refused = Refused(Reason.IMPOSTOR, by=by, peer="eve\n", detail="another\x1bkey")
    assert str(refused) == f"{text}: impostor (another\\u{{1b}}key)"
    assert (refused.reason, refused.by, refused.peer) == (Reason.IMPOSTOR, by, "eve\\u{a}")


def test_a_call_error_takes_a_code_of_the_list_or_its_name():
    """A misspelled code is a mistake in the handler, told with the list."""
    assert CallError("not_found").code is Code.NOT_FOUND
    assert str(CallError(Code.ABORTED, "no\nway")) == "aborted: no\\u{a}way"
    with pytest.raises(UsageError, match="use one of cancelled, unknown"):
        CallError("missing")


def test_our_errors_are_also_what_they_are_elsewhere():
    """`except ValueError` and `except anyio.BrokenResourceError` catch what they should."""
    assert issubclass(UsageError, ValueError)
    assert issubclass(errors.IdentityError, ValueError)
    assert issubclass(errors.LinkLost, anyio.BrokenResourceError)


def test_what_holds_a_key_is_neither_pickled_nor_copied():
    """The one function behind every `__reduce__` of that kind."""

    class Holder:
        __reduce__ = no_pickle

    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="Holder cannot be pickled"):
            attempt(Holder())
