"""Whom I believe: a presented chain becomes a `VerifiedPeer`, or a refusal that says who and why.

`present` checks everything that needs no belief, a `Model` says whether it believes, `judge` does both in
order and is the only source of a `VerifiedPeer`. There is no default model and none that is silently
permissive.
"""

from autolink.trust.anchors import IssuedBy, Pinned, SelfCertified, UnsafeAnyone
from autolink.trust.cache import VerdictCache
from autolink.trust.compose import AllOf, AnyOf, UnsafeAllOf, UnsafeAnyOf
from autolink.trust.known import KnownAgents
from autolink.trust.model import Context, Contradicted, Grounds, Model, NotVouched
from autolink.trust.presented import Presented, present
from autolink.trust.verdict import VerifiedPeer, judge, recall

__all__ = [
    "Model", "Context", "Presented", "Grounds", "NotVouched", "Contradicted",
    "judge", "recall", "VerifiedPeer", "present", "VerdictCache",
    "IssuedBy", "SelfCertified", "Pinned", "KnownAgents", "UnsafeAnyone",
    "AllOf", "AnyOf", "UnsafeAllOf", "UnsafeAnyOf",
]  # fmt: skip
