"""Accepted verdicts, kept for the peers that come again.

The key covers everything that a verdict rests on but time: the model and its epoch, the circumstances, and
the whole presented chain with its evidence. The leaf alone would not do: junk around a victim's public leaf
would be another presentation under the same key. Refusals are never kept, so strangers cannot evict who is
believed.
"""

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, final

from autolink import limits
from autolink.errors import UsageError
from autolink.trust.model import Context, Model

if TYPE_CHECKING:
    from autolink.trust.verdict import VerifiedPeer

Key = tuple[int, int, str, bool, bytes]


@final
class VerdictCache:
    """The most recently used accepted verdicts, `limits.VERDICTS_BYTES` of certificates and evidence at most.

    Args:
        size: how many.

    Raises:
        UsageError: `size` is not positive.
    """

    def __init__(self, size: int = limits.VERDICTS) -> None:
        if size < 1:
            raise UsageError("a verdict cache holds at least one verdict; to have none, pass no cache")
        self._size = size
        self._verdicts: OrderedDict[Key, tuple[Model, datetime, VerifiedPeer]] = OrderedDict()
        self._bytes = 0

    @staticmethod
    def key(model: Model, epoch: int, context: Context, fingerprint: bytes) -> Key:
        return id(model), epoch, context.direction, context.given_by_person, fingerprint

    def get(self, key: Key, now: datetime) -> "VerifiedPeer | None":
        """The verdict, if it still stands at `now` and was formed no later."""
        found = self._verdicts.get(key)
        if found is None:
            return None
        _, judged_at, peer = found
        if not judged_at <= now <= peer.valid_until:
            return None
        self._verdicts.move_to_end(key)
        return peer

    def put(self, key: Key, model: Model, now: datetime, peer: "VerifiedPeer") -> None:
        """Keep an accepted verdict that `model` formed at `now`."""
        replaced = self._verdicts.pop(key, None)
        self._verdicts[key] = model, now, peer  # holding the model keeps its id from being given to another
        self._bytes += _size(peer) - (_size(replaced[2]) if replaced else 0)
        while len(self._verdicts) > self._size or self._bytes > limits.VERDICTS_BYTES:
            self._bytes -= _size(self._verdicts.popitem(last=False)[1][2])

    def clear(self) -> None:
        """Forget everything, for instance because the agent's trust model was replaced."""
        self._verdicts.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._verdicts)


def _size(peer: "VerifiedPeer") -> int:
    return sum(len(certificate.der) for certificate in peer.chain) + sum(map(len, peer.presented.evidence))
