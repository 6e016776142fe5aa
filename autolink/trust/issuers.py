"""What stands above a leaf: the issuers of a chain, examined once and remembered as facts.

An organisation's agents differ in their leaf; the certificates above it are the same bytes every time. That
these bytes are a valid path of this profile, and which names it spells, is a fact: it depends on nobody's
trust and on no clock. So it is established once for exactly these bytes and remembered, and a leaf never seen
costs one signature and the rules about itself. What is not a fact is asked every time: validity in time, and
whether anybody believes the path.

Issuers get two examinations, since so much rests on them: OpenSSL's of the whole path (chain.py), and the
profile's (profile.py). A leaf gets the profile's and its issuer's signature (presented.py), seen issuers or
not, so that no verdict depends on what was remembered.

The key of the memory is every byte above the leaf. Only `keep` adds to it, which `judge` calls for a peer
that was accepted; so strangers neither fill it nor push anybody out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final, final

from autolink import limits
from autolink.errors import IdentityError, display
from autolink.identity.autoid import AutoId
from autolink.identity.certificate import Certificate
from autolink.identity.names import is_bound_to
from autolink.trust.chain import verify_path
from autolink.trust.profile import Placed, check_placed, place


@final
@dataclass(frozen=True, slots=True)
class Issuers:
    """The certificates above a leaf, sound in themselves. Only `establish` makes one.

    Attributes:
        chain: the leaf's issuer first.
        placed: the same, as the profile's rules look at them.
        ids: the AutoId of each, root first; empty when the path stops before its root.
        bound: the root's name commits to this key of it. After a rotation it does not, and the peer must show the way.
    """

    chain: tuple[Certificate, ...]
    placed: tuple[Placed, ...]
    ids: tuple[AutoId, ...]
    bound: bool

    @property
    def ders(self) -> tuple[bytes, ...]:
        return tuple([certificate.der for certificate in self.chain])

    @property
    def size(self) -> int:
        """Bytes of DER."""
        return sum(map(len, self.ders))


def establish(chain: tuple[Certificate, ...], now: datetime) -> Issuers:
    """Examine what stands above a leaf. Their validity at `now` has been checked.

    Raises:
        IdentityError: it is no valid path in this order, does not fit the profile, or see `name_path`.
    """
    ders = tuple([certificate.der for certificate in chain])
    try:
        if verify_path(ders[0], ders[1:-1], ders[-1:], now=now) != ders:
            raise IdentityError("the chain holds a certificate that is not on its path")
    except IdentityError as error:
        raise IdentityError(f"the path above the leaf: {error}", error.reason) from None
    placed = place(chain, below=1)
    check_placed(placed)
    ids = name_path(chain)
    return Issuers(chain, placed, ids, bool(ids) and is_bound(chain[-1]))


def name_path(chain: Sequence[Certificate]) -> tuple[AutoId, ...]:
    """The ids of a complete path, root first; empty for one that stops before its root.

    Raises:
        IdentityError: the root was not signed by its own key, or is of a kind that does not issue, or a
            certificate's URI is not its name's AutoId.
    """
    root = chain[-1]
    if not root.names_itself:
        return ()
    if not root.self_issued:
        raise IdentityError(f"the certificate of {display(root.common_name)} is not signed by its own key")
    if root.kind and not root.kind.natural:
        raise IdentityError(f"{display(root.common_name)} issued itself, which no {root.kind} may")
    ids: tuple[AutoId, ...] = ()
    for certificate in reversed(chain):
        ids = next_ids(ids, certificate)
    return ids


def next_ids(ids: tuple[AutoId, ...], certificate: Certificate) -> tuple[AutoId, ...]:
    """The ids of a path that goes on to `certificate`.

    Raises:
        IdentityError: its URI is not its name's AutoId.
    """
    auto_id = AutoId.derive(certificate.common_name, ids[-1] if ids else None)
    if certificate.auto_id != auto_id:
        raise IdentityError(
            f"the certificate of {display(certificate.common_name)} has not its name's AutoId"
        )
    return *ids, auto_id


def is_bound(root: Certificate) -> bool:
    """Whether the root's name commits to this very key of it."""
    return is_bound_to(root.common_name, root.spki, root.next_key_hash)


class _Memory:
    """The most recently used, by the bytes that they are facts about. Agents in several threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[bytes, ...], Issuers] = OrderedDict()
        self._bytes = 0

    def find(self, ders: tuple[bytes, ...]) -> Issuers | None:
        with self._lock:
            found = self._kept.get(ders)
            if found is not None:
                self._kept.move_to_end(ders)
            return found

    def keep(self, issuers: Issuers) -> None:
        ders = issuers.ders
        with self._lock:
            if ders in self._kept:
                return
            self._kept[ders] = issuers
            self._bytes += issuers.size
            while len(self._kept) > limits.ISSUERS or self._bytes > limits.ISSUERS_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].size

    def __len__(self) -> int:
        return len(self._kept)


MEMORY: Final = _Memory()
"""This process's: what it holds is true for every agent."""
