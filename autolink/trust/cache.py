"""Accepted verdicts, kept for the peers that come again.

A verdict rests on the model and its epoch, the circumstances, the whole presented chain with its evidence, and
the time. All but time and epoch are the key. The leaf alone would not do: junk around a victim's public leaf
would be another presentation under the same key. A verdict of another epoch is none, and the model is asked
again; but what it vouched for, a chain that is sound in itself, is what the same bytes are under any epoch.

Refusals are never kept, so strangers cannot evict who is believed.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, final

from autolink import limits
from autolink.errors import UsageError
from autolink.trust.model import Context, Model

if TYPE_CHECKING:
    from autolink.trust.presented import Presented
    from autolink.trust.verdict import VerifiedPeer

Key = tuple[int, str, bool, tuple[bytes, ...], tuple[bytes, ...]]


class _Kept(NamedTuple):
    model: Model  # holding it keeps its id from being given to another
    judged_at: datetime
    peer: "VerifiedPeer"
    size: int


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
        self._verdicts: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0

    @staticmethod
    def key(model: Model, context: Context, chain_der: Sequence[bytes], evidence: Sequence[bytes]) -> Key:
        return id(model), context.direction, context.given_by_person, tuple(chain_der), tuple(evidence)

    def get(self, key: Key, now: datetime) -> "VerifiedPeer | None":
        """The verdict, if it still stands at `now`, was formed no later, and the model has not changed its mind since.

        Whatever the model raises when it is asked for its epoch is raised here.
        """
        kept = self._verdicts.get(key)
        if kept is None or not kept.judged_at <= now <= kept.peer.valid_until:
            return None
        if kept.peer.epoch != kept.model.epoch_of(kept.peer.presented.ids):
            return None
        self._verdicts.move_to_end(key)
        return kept.peer

    def sound(self, key: Key, now: datetime) -> "Presented | None":
        """The chain that a verdict of whatever epoch was about, if every certificate of it is valid at `now`."""
        kept = self._verdicts.get(key)
        if kept is None:
            return None
        presented = kept.peer.presented
        return presented if presented.valid_from <= now <= presented.valid_until else None

    def put(self, key: Key, model: Model, now: datetime, peer: "VerifiedPeer") -> None:
        """Keep an accepted verdict that `model` formed at `now`."""
        shown = tuple([certificate.der for certificate in peer.chain]), peer.presented.evidence
        key = *key[:3], *shown  # equal, but of the bytes that the peer holds anyway
        replaced = self._verdicts.pop(key, None)
        self._verdicts[key] = kept = _Kept(model, now, peer, sum(map(len, shown[0] + shown[1])))
        self._bytes += kept.size - (replaced.size if replaced else 0)
        while len(self._verdicts) > self._size or self._bytes > limits.VERDICTS_BYTES:
            self._bytes -= self._verdicts.popitem(last=False)[1].size

    def clear(self) -> None:
        """Forget everything, for instance because the agent's trust model was replaced."""
        self._verdicts.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._verdicts)
