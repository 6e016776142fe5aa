"""How an agent comes by a chain for its key.

A private key is made on the machine that uses it and never meets its issuer: the agent makes a request, the
issuer answers with a chain, the request completes into a credential. An issuer decides what a certificate
says; a request supplies a key, the proof that it is held, and a name that the issuer may replace.
"""

from collections.abc import Sequence
from typing import Self, cast, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from autolink.errors import IdentityError, UsageError, no_pickle
from autolink.identity import keys
from autolink.identity.certificate import PARSER_ERRORS, Certificate, common_name
from autolink.identity.credential import PEM_BYTES, ROOTS_MADE_HERE, Credential
from autolink.identity.issuing import build_request
from autolink.identity.keys import KeyType, PrivateKey, PublicKey
from autolink.identity.names import check_common_name, show_name
from autolink.identity.rotation import split_chain


@final
class CredentialRequest:
    """A name, a key, and the proof that the key is held (PKCS#10, RFC 2986).

    Attributes:
        name: the name asked for.
        public_key: the key to certify.
        pem: the request as it travels.
        private_key: None in a request that came from somebody else.
    """

    __slots__ = ("name", "pem", "private_key", "public_key")
    __reduce__ = no_pickle

    def __init__(self, name: str, public_key: PublicKey, pem: bytes, private_key: PrivateKey | None) -> None:
        self.name = name
        self.public_key = public_key
        self.pem = pem
        self.private_key = private_key

    @classmethod
    def new(cls, name: str, *, key_type: KeyType = KeyType.P256) -> Self:
        """Make a fresh key and ask for a name. The key stays in `private_key` until `complete`.

        Raises:
            IdentityError: the name is not allowed.
        """
        return cls.from_key(name, keys.generate(key_type))

    @classmethod
    def from_key(cls, name: str, private_key: PrivateKey) -> Self:
        """Ask for a name for a key that is there already.

        Raises:
            IdentityError: the name or the kind of key is not allowed.
        """
        keys.key_type(private_key.public_key())
        request = build_request(name, private_key)
        return cls(name, private_key.public_key(), request.public_bytes(Encoding.PEM), private_key)

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read somebody's request. What it asks for beyond name and key, extensions above all, is never
        looked at.

        Raises:
            IdentityError: it is malformed, its name or key is not allowed, or it does not prove that the key
                is held.
        """
        if len(pem) > PEM_BYTES:
            raise IdentityError("the request is too large")
        try:
            request = x509.load_pem_x509_csr(pem)
            public_key = request.public_key()
            name = common_name(request.subject)
            check_common_name(name, issued=True)
            keys.key_type(public_key)  # before the signature: an unreasonable key is slow to verify with
            proved = request.is_signature_valid
        except IdentityError as error:
            raise IdentityError(f"the request is not acceptable: {error}") from None
        except PARSER_ERRORS:
            raise IdentityError("the request is malformed: a PEM CERTIFICATE REQUEST was expected") from None
        if not proved:
            raise IdentityError(
                f"the request of {show_name(name)!r} does not prove that it holds the key it names"
            )
        return cls(name, cast("PublicKey", public_key), request.public_bytes(Encoding.PEM), None)

    def complete(self, chain: Sequence[Certificate], *, first_use: bool = False) -> Credential:
        """Join our key and the chain that the issuer answered with.

        Args:
            chain: the answer, leaf first.
            first_use: nobody has ever acted under this Auto ID, as you know and we cannot: its agent then takes
                forwarded messages at once. Otherwise it refuses, for a minute, what an earlier holder may have taken.

        Raises:
            IdentityError: the chain is not for our key, or see `Credential.from_key`.
            UsageError: this request came from somebody else, so its key is not here.
        """
        if self.private_key is None:
            raise UsageError("only the machine that made a request can complete it: its key is there")
        made_here = first_use or chain[-1] in ROOTS_MADE_HERE
        chain, rotations = split_chain(chain)
        return Credential(chain, self.private_key, made_here=made_here, rotations=rotations)

    def __repr__(self) -> str:
        return f"<CredentialRequest {show_name(self.name)!r}>"
