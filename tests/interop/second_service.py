"""Where an agent is and what it offers, by a second implementation of docs/spec.md, section 20, alone.

Nothing of autolink is imported here.
"""

import ipaddress
import re
import unicodedata

from cryptography.hazmat.primitives import hashes

from tests.interop.second_certificates import decode, encode, need, sha
from tests.interop.second_log import Ledger
from tests.interop.second_registry import (
    GUARDIANS,
    RECOVER,
    REGISTER,
    ROTATE,
    SERVICE,
    is_moment,
    parse_entry,
)

BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Unicode's Default_Ignorable_Code_Point outside of the categories that no name has, and U+2800."""


def open_service(record):
    """What a SERVICE entry says, by name."""
    need(0 < len(record) <= 16384, "malformed", "size")
    value = decode(record, 4096)
    need(type(value) is list and len(value) == 5 and value[0] == "autolink/1 service", "malformed", "shape")
    fields = dict(zip(("addresses", "methods", "channels", "valid_until"), value[1:], strict=True))
    addresses, offered = fields["addresses"], [fields["methods"], fields["channels"]]
    need(type(addresses) is list and 1 <= len(addresses) <= 16, "malformed", "addresses")
    need(all(type(each) is str and _is_address(each) for each in addresses), "malformed", "an address")
    need(len({*addresses}) == len(addresses), "malformed", "an address twice")
    for each in offered:
        need(type(each) is list and all(map(_is_offer, each)), "malformed", "methods or channels")
        names = [name.encode() for name, _, _ in each]
        need(names == sorted(names), "malformed", "order")
    names = [name for each in offered for name, _, _ in each]
    need(len({*names}) == len(names) <= 256, "malformed", "names")
    need(is_moment(fields["valid_until"]) and fields["valid_until"], "malformed", "valid_until")
    return fields


def _is_offer(offer):
    if not (type(offer) is list and len(offer) == 3 and type(offer[0]) is str):
        return False
    schemas = all(type(each) is dict and len(encode(each)) <= 4096 for each in offer[1:])
    return 1 <= len(offer[0].encode()) <= 255 and _can_be_seen(offer[0]) and schemas


def _can_be_seen(name):
    allowed = all(each == " " or unicodedata.category(each)[0] not in "CZ" for each in name)
    return allowed and not BLANK.search(name)


def _is_address(address):
    host, _, port = address.rpartition(":")
    if not re.fullmatch("[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        return False
    labels = host.split(".")
    try:
        if host.startswith("["):
            return host == f"[{ipaddress.IPv6Address(host[1:-1])}]"
        if labels[-1][:1].isdigit():
            return host == str(ipaddress.IPv4Address(host))
    except ValueError:
        return False
    return len(host) <= 253 and all(
        re.fullmatch("(?!-)[a-z0-9_-]{1,63}(?<!-)", each, re.ASCII) for each in labels
    )


def find_service(said, leaves, certificate):
    """The service record of an ID (section 20), or None for none.

    Args: an active status of it, the leaves of all its entries in their order, and its certificate on record.
    """
    need(
        sha(b"\0" + leaves[-1]) == said["head"] and len(leaves) == said["entries"],
        "malformed",
        "not its entries",
    )
    need(certificate.fingerprint(hashes.SHA256()) == said["certificate"], "malformed", "another certificate")
    after = None
    for entry in (parse_entry(decode(leaf)[1]) for leaf in reversed(leaves)):
        follows = after is None or after.previous == sha(entry.body)
        if entry.op in (REGISTER, ROTATE, RECOVER) or (not follows and after.op == GUARDIANS):
            return None
        need(follows and entry.id == said["id"], "malformed", "an entry is missing")
        if entry.op == SERVICE:
            Ledger.check_signatures(entry, (entry.id, certificate.public_key()))
            return open_service(entry.fields["service"]) if entry.fields["service"] else None
        after = entry
    return None
