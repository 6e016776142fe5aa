"""Rule 42: addresses that somebody else has written are judged as what they resolve to, and that is dialled."""

import socket

import pytest

from autolink import limits
from autolink.errors import UsageError
from autolink.registry.addresses import LOOPBACK, PRIVATE, Allowed, NotAllowed
from autolink.transport import TcpAddress
from autolink.transport.sockets import Target


def targets(*hosts: str, port: int = 4433) -> list[Target]:
    return [Target(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) for host in hosts]


class Names:
    """A resolver that is the attacker's, too: each question gets the next answer."""

    def __init__(self, *answers: list[Target]) -> None:
        self.answers = list(answers)

    async def __call__(self, address: TcpAddress) -> list[Target]:
        return self.answers.pop(0)


FORBIDDEN = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"],  # noqa: S104  nobody binds it
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0"],
    "private": ["10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12::1", "64:ff9b::a00:1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "metadata": [
        "169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "fd20:ce::254", "169.254.0.23", "fe80::a9fe:a9fe%eth0",
    ],
    "reserved": ["240.0.0.1", "255.255.255.255", "::127.0.0.1", "4000::1", "64:ff9b:1::7f00:1", "100::1"],
    "site-local": ["fec0::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "special": ["2002:7f00:1::1", "2001::1", "192.88.99.1", "198.18.0.1"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "host"), [(kind, host) for kind, hosts in FORBIDDEN.items() for host in hosts]
)
async def test_rule_42_only_public_addresses_are_dialled(kind: str, host: str) -> None:
    names = Names(targets(host))
    with pytest.raises(NotAllowed, match=kind):
        await Allowed().resolve(TcpAddress("evil.example", 4433), names)


@pytest.mark.parametrize(
    "host", ["0177.0.0.1", "2130706433", "0x7f.1", "127.1", "0", "0x7f000001", "127.0.0.1."]
)
async def test_rule_42_a_number_written_otherwise_is_no_address(host: str) -> None:
    """The operating system's resolver reads octal, hexadecimal and short forms; it is not asked."""
    with pytest.raises(UsageError):
        TcpAddress(host, 4433)


async def test_rule_42_what_the_operating_system_resolves_is_judged() -> None:
    for host in ("localhost", "localhost.", "LOCALHOST", "ｌｏｃａｌｈｏｓｔ"):  # noqa: RUF001
        with pytest.raises((UsageError, NotAllowed, OSError), match=r"loopback|no host|cannot|known"):
            await Allowed().resolve(TcpAddress(host, 4433))


async def test_rule_42_what_was_judged_is_what_is_dialled() -> None:
    """A name that resolves to something else a moment later is not asked again: the answer is a number."""
    names = Names(targets("9.9.9.9", "127.0.0.1", "2606:4700::1", "9.9.9.9"), targets("127.0.0.1"))
    found = await Allowed().resolve(TcpAddress("evil.example", 4433), names)
    assert found == [TcpAddress("9.9.9.9", 4433), TcpAddress("2606:4700::1", 4433)]
    with pytest.raises(NotAllowed, match="loopback"):
        await Allowed().resolve(TcpAddress("evil.example", 4433), names)


async def test_rule_42_the_port_is_the_records_and_never_0() -> None:
    found = await Allowed().resolve(TcpAddress("a.example", 4433), Names(targets("9.9.9.9", port=22)))
    assert found == [TcpAddress("9.9.9.9", 4433)]
    with pytest.raises(NotAllowed, match="port 0"):
        await Allowed().resolve(TcpAddress("a.example", 0), Names(targets("9.9.9.9")))


async def test_a_name_of_hundreds_of_addresses_is_cut_and_one_of_none_refused() -> None:
    many = targets(*(f"9.9.{number}.9" for number in range(200)))
    assert len(await Allowed().resolve(TcpAddress("a.example", 1), Names(many))) == limits.ADDRESSES
    with pytest.raises(NotAllowed, match="no address"):
        await Allowed().resolve(TcpAddress("a.example", 1), Names([]))


async def test_networks_are_allowed_by_name_and_metadata_never_among_others() -> None:
    allowed = Allowed([*PRIVATE, *LOOPBACK, "169.254.0.0/16", "0.0.0.0/0", "::/0"])
    for host in ("10.0.0.1", "127.0.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "169.254.1.1", "9.9.9.9"):
        assert len(await allowed.resolve(TcpAddress("a.example", 1), Names(targets(host)))) == 1
    for host in (*FORBIDDEN["metadata"], *FORBIDDEN["multicast"], *FORBIDDEN["unspecified"]):
        with pytest.raises(NotAllowed):
            await allowed.resolve(TcpAddress("a.example", 1), Names(targets(host)))
    one = Allowed(["169.254.169.254/32"])
    assert await one.resolve(TcpAddress("169.254.169.254", 80)) == [TcpAddress("169.254.169.254", 80)]
    for wrong in ("10.0.0.1/8", "nonsense"):
        with pytest.raises(UsageError, match="networks"):
            Allowed([wrong])
