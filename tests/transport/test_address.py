"""Addresses and contacts: what is accepted, what is refused, and that writing and reading are inverse."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolink.errors import UsageError
from autolink.identity.autoid import PeerId
from autolink.transport import Contact, TcpAddress, UnixAddress, parse_address

ID = "ab" * 32
KEY = "sha256:" + "cd" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:7600", TcpAddress("localhost", 7600)),
        ("LOCALHOST:1", TcpAddress("localhost", 1)),
        ("my_agent.internal:0", TcpAddress("my_agent.internal", 0)),
        ("127.0.0.1:65535", TcpAddress("127.0.0.1", 65535)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[0:0:0:0:0:0:0:1]:80", TcpAddress("::1", 80)),
        ("unix:/run/agent.sock", UnixAddress("/run/agent.sock")),
        ("unix:/srv/a b:c@d?e#f%20.sock", UnixAddress("/srv/a b:c@d?e#f%20.sock")),
    ],
)
def test_what_an_address_may_be(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "host",
        "host:",
        "host:65536",
        "host:080",
        "host:-1",
        "host:+1",
        "host:1_000",
        "host:٨٠",  # digits, but not ASCII's
        "host: 80",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::g]:80",
        "[fe80::1%eth0]:80",
        "[127.0.0.1]:80",
        "[host]:80",
        "[::1:80",
        "127.1:80",  # a resolver would take it for 127.0.0.1
        "0x7f.0.0.1:80",
        "127.0.0.01:80",
        "2130706433:80",
        "1.2.3.4.5:80",
        "a..b:80",
        "-a:80",
        "a-:80",
        "a.:80",
        "a" * 64 + ":80",
        ".".join(["a" * 60] * 5) + ":80",
        "bücher.example:80",
        "a b:80",
        "a\n:80",
        "a\0:80",
        "user@host:80",
        "http://host:80",
        "host:80/path",
        "unix:",
        "unix:relative",
        "unix:/folder/",
        "unix:/a\nb",
        "unix:/\u202egnp.sock",
        "unix:/" + "x" * 103,
        "UNIX:/run/a",
    ],
)
def test_what_an_address_may_not_be(text):
    """... and the error shows it on one line, whatever is in it."""
    with pytest.raises(UsageError) as error:
        parse_address(text)
    assert str(error.value).isprintable()


def test_a_url_is_not_taken_for_an_address_of_ipv6():
    with pytest.raises(UsageError, match="an address is host:port"):
        parse_address("http://127.0.0.1:80")


@pytest.mark.parametrize(
    "text",
    [
        f"autolink://{ID}@127.0.0.1:7600",
        f"autolink://{ID}@[::1]:7600",
        f"autolink://{ID}@unix:/run/agent.sock",
        f"autolink://{ID}@unix:/run/a%20b%3Fkey%3D%40%23%25.sock",
        f"autolink://{ID}@example.org:1?key={KEY}",
        f"autolink://key:{KEY}@example.org:1",
    ],
)
def test_a_contact_is_written_as_it_was_read(text):
    assert str(Contact.parse(text)) == text


@given(
    st.one_of(
        st.builds(
            UnixAddress,
            st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20).map(
                lambda name: "/" + name.replace("/", "_")
            ),
        ),
        st.builds(
            TcpAddress, st.ip_addresses().map(lambda ip: str(ip).partition("%")[0]), st.integers(1, 65535)
        ),
    ),
    st.sampled_from([PeerId.parse(ID), PeerId.parse(f"{ID}?key={KEY}"), PeerId.parse(f"key:{KEY}")]),
)
@settings(deadline=None, derandomize=True, database=None)
def test_nothing_in_a_contact_can_end_its_address_early(address, peer_id):
    """Writing and reading are inverse, for paths with any characters in them too."""
    contact = Contact(peer_id, address)
    assert Contact.parse(str(contact)) == contact
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ID,
        f"http://{ID}@host:1",
        "autolink://host:1",
        f"autolink://{ID.upper()}@host:1",
        f"autolink://{ID[:-1]}@host:1",
        f"autolink://autoid:auto:{ID}@host:1",  # one way to write it
        f"autolink://{ID}@HOST:1",
        f"autolink://{ID}@[0::1]:1",
        f"autolink://{ID}@host:0",
        f"autolink://{ID}@host",
        f"autolink://{ID}@host:1?key=",
        f"autolink://{ID}@host:1?key=bound",
        f"autolink://{ID}@host:1?key={KEY}&more=1",
        f"autolink://{ID}@host:1?other=1",
        f"autolink://{ID}@host:1#fragment",
        f"autolink://{ID}@host:1/",
        f"autolink://{ID}?key={KEY}@host:1",
        f"autolink://key:{KEY}@host:1?key={KEY}",
        f"autolink://{ID}@h%6fst:1",
        f"autolink://{ID}@unix:/a b",
        f"autolink://{ID}@unix:/a%2",
        f"autolink://{ID}@unix:/a%ff",
        f"autolink://{ID}@unix:/a%2fb",
        f"autolink://{ID}@unix:/a%00",
        f"autolink://{ID}@@host:1",
        f" autolink://{ID}@host:1",
    ],
)
def test_what_a_contact_may_not_be(text):
    with pytest.raises(UsageError) as error:
        Contact.parse(text)
    assert str(error.value).isprintable()


def test_an_odd_spelling_is_answered_with_the_right_one():
    with pytest.raises(UsageError, match=f"autolink://{ID}@host:1"):
        Contact.parse(f"autolink://{ID}@Host:1")
