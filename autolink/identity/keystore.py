"""Where identities are kept: one folder each, which only its owner can read.

::

    $AUTOLINK_HOME or the platform's user data folder
    └── identities/            0700, ours
        └── <name>/            0700, ours
            ├── key            0600, see sealed.py
            ├── key.next       0600, while the key is being replaced
            ├── request.pem    0600, where it was requested
            ├── chain.pem      0600, leaf first, a rotated root's earlier certificates last; absent while a request is
            │                  unanswered
            └── ...            the agent's own state (known agents, replay window)

What another process or user may do meanwhile decides how this is written:

* A new identity is made in a hidden folder beside its place and renamed into it. Of two processes that take
  one name one wins; a full disk or a crash leaves at most the hidden folder, which no name can reach.
* Every other change replaces one file by rename, so a reader sees the old one or the new.
* A rotation replaces two, key and chain. The new key is laid beside the old one first; then the chain is replaced, and that
  rename is the rotation: the key of an identity is whichever of the two files belongs to its chain. Last the new key takes
  the old one's place. So there is no moment without a key that fits, and the folder with the agent's state, which a running
  agent has open, stays where it is. The old key is not kept: its owner has no more use for it, and a thief has. (The request
  of an identity that was issued is replaced just before the chain; where that is all that happened, it is repeated.)
* What is not ours, is readable by others, or could be exchanged between the look and the use is refused (`owned`).
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

import platformdirs

from autolink.errors import KeystoreError, display
from autolink.identity import files, keys, owned
from autolink.identity.certificate import Certificate, dump_chain, load_chain
from autolink.identity.credential import PEM_BYTES, UNUSED, Credential, check_chain
from autolink.identity.request import CredentialRequest
from autolink.identity.rotation import split_chain
from autolink.identity.sealed import KEY_BYTES, SCRYPT_N, belongs_to, is_sealed, seal, unseal

KEY: Final = "key"
NEXT: Final = "key.next"
CHAIN: Final = "chain.pem"
REQUEST: Final = "request.pem"

_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_REST: Final = _FIRST | frozenset("._-")
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def default_home() -> Path:
    """``$AUTOLINK_HOME``, else the platform's place for a user's data."""
    chosen = os.environ.get("AUTOLINK_HOME")
    return Path(chosen) if chosen else platformdirs.user_data_path("autolink", appauthor=False)


_passphrase: list[str] = []


def environment_passphrase() -> str | None:
    """``$AUTOLINK_PASSPHRASE``, taken out of the environment when first seen, so that no child process inherits it."""
    if "AUTOLINK_PASSPHRASE" in os.environ:
        _passphrase[:] = [os.environ.pop("AUTOLINK_PASSPHRASE")]
    return _passphrase[0] if _passphrase else None


def use_passphrase(passphrase: str) -> None:
    """Let `environment_passphrase` give this one from now on, as if it had come by the variable."""
    os.environ.pop("AUTOLINK_PASSPHRASE", None)
    _passphrase[:] = [passphrase]


def is_entry_name(name: str) -> bool:
    """Whether this may name an entry: 1 to 64 of ``a-z0-9._-``, first a letter or digit, without ``..``."""
    return 1 <= len(name) <= 64 and name[0] in _FIRST and _REST.issuperset(name) and ".." not in name


@final
class Keystore:
    """The identities of one user on one machine.

    Args:
        home: None for `default_home`.
    """

    def __init__(self, home: Path | None = None, *, scrypt_n: int = SCRYPT_N) -> None:
        self.home = default_home() if home is None else Path(home)
        self._identities = self.home / "identities"
        self._scrypt_n = scrypt_n

    def names(self) -> tuple[str, ...]:
        """The entries, requests without an answer included.

        Raises:
            KeystoreError: the folder is not safe to use.
        """
        with owned.errors_about(self._identities):
            try:
                with owned.open_folder(self._identities, None) as identities:
                    return tuple(sorted(filter(is_entry_name, os.listdir(identities))))  # noqa: PTH208  by descriptor
            except FileNotFoundError:
                return ()

    def folder(self, name: str) -> Path:
        """Where an identity's files are, or would be.

        Raises:
            KeystoreError: the name is not allowed.
        """
        if not is_entry_name(name):
            allowed = "1 to 64 of a-z, 0-9, '.', '_' and '-', without '..'"
            raise KeystoreError(f"{display(name, 80)!r} cannot name an identity: use {allowed}")
        return self._identities / name

    def save_new(
        self, name: str, credential: Credential, *, passphrase: str | None, unencrypted: bool = False
    ) -> None:
        """Store a credential under a new name.

        Raises:
            KeystoreError: the name is taken or not allowed, there is no passphrase and `unencrypted` was not
                asked for, or it cannot be written; then nothing is.
        """
        key = seal(credential.private_key, passphrase, unencrypted=unencrypted, scrypt_n=self._scrypt_n)
        self._create(name, {KEY: key, CHAIN: dump_chain(credential.certificates)})

    def save_request(
        self, name: str, request: CredentialRequest, *, passphrase: str | None, unencrypted: bool = False
    ) -> None:
        """Store our own request and its key under a new name, until `accept`.

        Raises:
            KeystoreError: as for `save_new`, or the request is somebody else's.
        """
        if request.private_key is None:
            raise KeystoreError("this request came from somebody else: its key is not here")
        key = seal(request.private_key, passphrase, unencrypted=unencrypted, scrypt_n=self._scrypt_n)
        self._create(name, {KEY: key, REQUEST: request.pem})

    def accept(self, name: str, chain: Sequence[Certificate]) -> None:
        """Store the answer to our request, or a newer chain for the same key.

        Args:
            name: of the identity.
            chain: leaf first; behind a rotated root its earlier certificates, as `Credential.issue` answers.

        Raises:
            KeystoreError: there is no such identity, the chain is for another key, or it cannot be written.
            IdentityError: the chain does not join.
        """
        check_chain(*split_chain(chain))
        with self._entry(name, changing=True) as folder:
            own = owned.read_optional(folder, CHAIN, PEM_BYTES)
            if own is not None:
                spki = load_chain(own)[0].spki
            else:
                spki = keys.spki(
                    CredentialRequest.from_pem(owned.read(folder, REQUEST, PEM_BYTES)).public_key
                )
            if chain[0].spki != spki:
                raise KeystoreError("the chain is for another key than the one kept here")
            files.write_atomic(CHAIN, dump_chain(chain), folder=folder)

    def rotate(
        self, name: str, credential: Credential, *, passphrase: str | None, unencrypted: bool = False
    ) -> None:
        """Put a rotated credential in the place of the identity that it follows; the old key is gone then.

        Args:
            name: of the identity.
            credential: of `Credential.rotated`, from what is stored here; of an identity that was issued, over the key to
                which it has gone on in a registry's record.
            passphrase, unencrypted: as `save_new`; not looked at for the old key, which may be lost.

        Raises:
            KeystoreError: there is no such identity, it is not the one that `credential` follows (any more), or as for
                `save_new`. Where the disk failed, `chain` says whether the new one is in place.
        """
        key = seal(credential.private_key, passphrase, unencrypted=unencrypted, scrypt_n=self._scrypt_n)
        with self._entry(name, changing=True) as folder:
            leaf = self._chain(folder)[0]
            if not _follows(credential, leaf):
                raise KeystoreError(
                    "the identity kept here is not the one that was rotated; perhaps it has been meanwhile"
                )
            following = owned.read_optional(folder, NEXT, PEM_BYTES)
            # An earlier rotation was cut short.
            if following is not None and belongs_to(following, leaf.spki_sha256):
                os.replace(NEXT, KEY, src_dir_fd=folder, dst_dir_fd=folder)
            files.write_atomic(NEXT, key, folder=folder)
            if len(credential.chain) > 1:  # its next renewal is asked for with the new key
                asked = CredentialRequest.from_key(credential.name, credential.private_key)
                files.write_atomic(REQUEST, asked.pem, folder=folder)
            files.write_atomic(CHAIN, dump_chain(credential.certificates), folder=folder)  # this is it
            with suppress(OSError):  # whoever loads it finds the key in either place
                os.replace(NEXT, KEY, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)

    def pending(self, name: str) -> bool:
        """Whether this is a request that nobody has answered yet."""
        with self._entry(name) as folder:
            return owned.read_optional(folder, CHAIN, PEM_BYTES) is None

    def is_encrypted(self, name: str) -> bool:
        """Whether `load` needs a passphrase.

        Raises:
            KeystoreError: there is none of this name, or its files are not safe to use.
        """
        with self._entry(name) as folder:
            if owned.read_optional(folder, CHAIN, PEM_BYTES) is None:
                return is_sealed(owned.read(folder, KEY, KEY_BYTES))
            return is_sealed(self._chain_and_key(folder)[1])

    def chain(self, name: str) -> tuple[Certificate, ...]:
        """An identity's certificates (`Credential.certificates`), leaf first; needs no passphrase.

        Raises:
            KeystoreError: there is none of this name, it is still a request, or its files are not safe to
                use.
        """
        with self._entry(name) as folder:
            return self._chain(folder)

    def request_pem(self, name: str) -> bytes:
        """A request as it travels, to show it again; needs no passphrase.

        Raises:
            KeystoreError: there is none of this name, or it was not requested here.
        """
        with self._entry(name) as folder:
            pem = owned.read_optional(folder, REQUEST, PEM_BYTES)
        if pem is None:
            raise KeystoreError(f"{name!r} was not requested here: there is no request to show")
        return pem

    def load(self, name: str, *, passphrase: str | None = None) -> Credential:
        """Open an identity.

        Args:
            passphrase: None for a key that was stored unencrypted.

        Raises:
            KeystoreError: there is none of this name, it is still a request, its files are not safe to use or do
                not belong together, or the passphrase is wrong or missing.
        """
        with self._entry(name) as folder:
            certificates, stored = self._chain_and_key(folder)
            key = unseal(stored, passphrase)
            unused = owned.read_optional(folder, UNUSED, PEM_BYTES)
            since = None if unused is None else _time(unused)
            chain, rotations = split_chain(certificates)
            return Credential(chain, key, folder=self.folder(name), unused_since=since, rotations=rotations)

    def _create(self, name: str, contents: dict[str, bytes]) -> None:
        contents = contents | {UNUSED: datetime.now(UTC).isoformat().encode()}
        hidden = f".new-{secrets.token_hex(8)}"
        with owned.errors_about(self.folder(name)):
            self._identities.mkdir(mode=0o700, parents=True, exist_ok=True)
            with owned.open_folder(self._identities, None) as identities:
                os.mkdir(hidden, 0o700, dir_fd=identities)
                try:
                    with owned.open_folder(hidden, identities) as folder:
                        for file, data in contents.items():
                            files.write_atomic(file, data, folder=folder)
                    os.rename(hidden, name, src_dir_fd=identities, dst_dir_fd=identities)
                    os.fsync(identities)
                except OSError as error:
                    if error.errno in _TAKEN:
                        raise KeystoreError("this name is taken") from None
                    raise
                finally:
                    _remove(hidden, identities)

    @contextmanager
    def _entry(self, name: str, *, changing: bool = False) -> Iterator[int]:
        with owned.errors_about(self.folder(name)), ExitStack() as opened:
            try:
                identities = opened.enter_context(owned.open_folder(self._identities, None))
                folder = opened.enter_context(owned.open_folder(name, identities))
            except FileNotFoundError:
                raise KeystoreError("there is no such identity") from None
            # A look and what is done upon it must belong together; closing the folder unlocks it.
            if changing:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise KeystoreError("another process is changing this identity") from None
            yield folder

    def _chain_and_key(self, folder: int) -> tuple[tuple[Certificate, ...], bytes]:
        """An identity's certificates and the key file that belongs to them, while another process may be rotating it: it
        writes NEXT, then the chain, then moves NEXT to KEY. So they are looked for in this order."""
        while True:
            certificates = self._chain(folder)
            following, key = owned.read_optional(folder, NEXT, PEM_BYTES), owned.read(folder, KEY, KEY_BYTES)
            for data in (following, key):
                if data is not None and belongs_to(data, certificates[0].spki_sha256):
                    return certificates, data
            if self._chain(folder) == certificates:
                return certificates, key  # what is wrong with it will be said by whoever opens it

    @staticmethod
    def _chain(folder: int) -> tuple[Certificate, ...]:
        pem = owned.read_optional(folder, CHAIN, PEM_BYTES)
        if pem is None:
            raise KeystoreError("this request has no answer yet: accept the issuer's chain first")
        return load_chain(pem)


def _follows(credential: Credential, leaf: Certificate) -> bool:
    """Whether a credential is the rotation of the one with this certificate. A recovered one shows no rotations, and where
    the certificate commits to nothing, a registry has judged."""
    new = credential.leaf
    if leaf.next_key_hash is None:
        return leaf.auto_id == new.auto_id
    if credential.rotations:
        return leaf == credential.rotations[-1]
    if new.recovered_in is None or (new.common_name, new.recovered_in) != (
        leaf.common_name,
        leaf.recovered_in,
    ):
        return False
    return new.spki_sha256 == leaf.next_key_hash


def _time(text: bytes) -> datetime | None:
    """The time in the UNUSED file; none where it cannot be read, which is the careful answer."""
    try:
        return datetime.fromisoformat(text.decode()).astimezone(UTC)
    except ValueError:
        return None


def _remove(hidden: str, identities: int) -> None:
    """Take away a folder that was not renamed into place."""
    with suppress(FileNotFoundError):
        for file in (KEY, CHAIN, REQUEST, UNUSED):  # what a new identity is made of
            with suppress(FileNotFoundError):
                os.unlink(f"{hidden}/{file}", dir_fd=identities)
        os.rmdir(hidden, dir_fd=identities)
