"""Who somebody is: the AutoId that a name path gives, and the PeerId that is actually verified.

An AutoId hashes names only, so anybody can make a certificate that carries any of them. What a verdict is
about is the pair of an AutoId and the *authority* that vouches for it: the word `bound` when the path starts
at a name that commits to its key (names.py), else the key that the verdict rests on. Nothing that decides
anything compares a bare AutoId.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Final, Self, final

from autolink.errors import IdentityError, UsageError, display

URI_PREFIX: Final = "autoid:auto:"
BOUND: Final = "bound"
KEY_PREFIX: Final = "sha256:"


@final
@dataclass(frozen=True, slots=True, order=True, repr=False)
class AutoId:
    """32 bytes: BLAKE2b-256 of the common name, below an issuer of the issuer's 32 bytes and the name.

    Raises:
        IdentityError: `value` is not 32 bytes.
    """

    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != 32:
            raise IdentityError("an AutoId is 32 bytes; AutoId.parse reads its 64 digits")

    @classmethod
    def derive(cls, common_name: bytes | str, issuer: Self | None = None) -> Self:
        """The id of a name: self-issued without `issuer`, else issued by it. Upstream's derivation, byte for
        byte."""
        name = common_name.encode() if isinstance(common_name, str) else common_name
        prefix = issuer.value if issuer else b""
        return cls(hashlib.blake2b(prefix + name, digest_size=32).digest())

    @classmethod
    def derive_path(cls, names: Iterable[str]) -> tuple[Self, ...]:
        """The ids along a complete name path, self-issued root first."""
        ids: list[Self] = []
        for name in names:
            ids.append(cls.derive(name, ids[-1] if ids else None))
        return tuple(ids)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 lower-case hexadecimal digits, or the URI form.

        Raises:
            IdentityError: it is neither.
        """
        return cls(_parse_digest(text.removeprefix(URI_PREFIX), "an AutoId"))

    @property
    def hex(self) -> str:
        return self.value.hex()

    @property
    def uri(self) -> str:
        """As it stands in a certificate: ``autoid:auto:<64 hex>``."""
        return URI_PREFIX + self.hex

    @property
    def short(self) -> str:
        """For people; never for comparison."""
        return self.hex[:8] + "…"

    def __str__(self) -> str:
        return self.hex

    def __repr__(self) -> str:
        return f"AutoId({self.short})"


@final
@total_ordering
@dataclass(frozen=True, slots=True, repr=False)
class PeerId:
    """What is verified, expected, cached and written in policies: an AutoId and the authority behind it.

    Attributes:
        auto_id: None for a key principal, where only a key was proved.
        authority: ``"bound"``, or ``"sha256:<64 hex>"`` over the SPKI of the key that the verdict rests on;
            for a key principal that key itself.

    Raises:
        IdentityError: the authority has another form, or a key principal is called bound.
    """

    auto_id: AutoId | None
    authority: str

    def __post_init__(self) -> None:
        if self.authority != BOUND:
            _parse_fingerprint(self.authority)
        elif self.auto_id is None:
            raise IdentityError("a key principal has a key as its authority, never 'bound'")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` writes: ``<hex>`` (bound), ``<hex>?key=sha256:<hex>``, or ``key:sha256:<hex>``.

        Raises:
            IdentityError: it is none of these.
        """
        if text.startswith("key:"):
            return cls(None, text.removeprefix("key:"))
        auto_id, separator, authority = text.partition("?key=")
        if separator and authority == BOUND:
            raise IdentityError("a bound peer id is written without ?key=")
        return cls(AutoId.parse(auto_id), authority if separator else BOUND)

    @property
    def principal(self) -> str:
        """The party without its authority, for people and logs: the id's digits, or ``key:sha256:<hex>``."""
        return self.auto_id.hex if self.auto_id else f"key:{self.authority}"

    def __str__(self) -> str:
        if self.auto_id is None or self.authority == BOUND:
            return self.principal
        return f"{self.principal}?key={self.authority}"

    def __repr__(self) -> str:
        return f"PeerId({self})"

    def __lt__(self, other: object) -> bool:
        return str(self) < str(other) if isinstance(other, PeerId) else NotImplemented


def key_authority(spki_sha256: bytes) -> str:
    """A key as an authority: ``sha256:<hex>`` over its SPKI."""
    return KEY_PREFIX + spki_sha256.hex()


def auto_id_given(value: AutoId) -> AutoId:
    """What a caller gave for an AutoId, where text means nothing: a program that has read its digits is told so at once.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, AutoId):
        return value
    shown = display(repr(value), 80)
    if isinstance(value, PeerId):
        raise UsageError(f"{shown} is no AutoId: give its auto_id")
    if isinstance(value, str):
        raise UsageError(f"{shown} is text and no AutoId: give AutoId.parse({shown})")
    raise UsageError(f"an AutoId is needed here, not {shown}")


def _parse_fingerprint(text: str) -> None:
    if not text.startswith(KEY_PREFIX):
        raise IdentityError(f"{display(text)!r} is no authority: write 'sha256:' and 64 hexadecimal digits")
    _parse_digest(text.removeprefix(KEY_PREFIX), "a key's fingerprint")


def _parse_digest(text: str, what: str) -> bytes:
    try:
        digest = bytes.fromhex(text) if len(text) == 64 else b""
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != text:  # upper case, or spaces between the digits
        raise IdentityError(f"{what} is 64 lower-case hexadecimal digits, not {display(text, 80)!r}")
    return digest
