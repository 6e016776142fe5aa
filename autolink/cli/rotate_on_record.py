"""`autolink id rotate` where a registry alone knows the next key: of an identity that was issued, or has a plain name.

The registry comes first, for it alone can say whether this is the key that was committed to. Where it is reached it is asked
before the issuer is, and until it has taken the rotation the key in use stays. The same command again goes on from wherever
it stopped: the key after the new one is that in its file, and the registry finds what is on record already, just so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click

from autolink.cli.making import free, say_where
from autolink.cli.options import read_chain, write
from autolink.cli.passphrase import new_passphrase
from autolink.cli.recorded import may_follow
from autolink.cli.registry_link import NotOnRecord, Reach, on_record
from autolink.cli.show import describe, print_facts, print_json, say
from autolink.cli.submitting import Submission, open_key
from autolink.cli.voiding import check_void_from
from autolink.errors import (
    AutolinkError,
    CallError,
    EntryRefused,
    Fault,
    LinkLost,
    Refused,
    UsageError,
    display,
)
from autolink.identity import (
    AutoId,
    Certificate,
    Credential,
    CredentialRequest,
    Keystore,
    keys,
    save_key,
    show_name,
)
from autolink.identity.credential import check_chain
from autolink.identity.keys import PrivateKey
from autolink.identity.rotation import split_chain
from autolink.registry import making
from autolink.registry.client import RegistryClient


@dataclass(frozen=True, slots=True)
class Rotation:
    """Of whom, from what to which key.

    Attributes:
        own: the certificates in use, as `Credential.certificates`.
        key: the next key; `file` is where it lies.
        certificates: the file of `own`, where the identity itself is lost; None: it is in the keystore.
    """

    name: str
    own: Sequence[Certificate]
    key: PrivateKey
    file: Path
    certificates: Path | None

    @property
    def auto_id(self) -> AutoId:
        return check_chain(*split_chain(self.own))[0]

    @property
    def spki(self) -> bytes:
        return keys.spki(self.key.public_key())

    def __str__(self) -> str:
        """The command that completes it."""
        lost = f" --certificates {display(str(self.certificates))}" if self.certificates else ""
        return f"autolink id rotate {self.name} CHAIN --next-key {display(str(self.file))}{lost}"


def check_terms(
    name: str, own: Sequence[Certificate], chain: Path | None, reached: Reach | None, *, days: float | None,
    void_from: int | None, next_key_out: Path | None,
) -> None:  # fmt: skip
    """What can be said before a key is opened.

    Raises:
        UsageError: there is an option of the other kind of identity, or of the other step, or no registry.
    """
    issued = not own[0].self_issued
    if chain is not None and not issued:
        raise UsageError(f"{name} signs for itself: leave CHAIN out")
    if days is not None and issued:
        raise UsageError(f"{name} was issued: its issuer says for how long (autolink id issue)")
    if own[0].next_key_hash is None and reached is None and (chain is not None or not issued):
        raise UsageError(
            f"the certificate of {name} commits to no next key, and only a registry knows one: give the contact of the one "
            "that has it on record, --registry"
        )
    if issued and chain is None and (void_from is not None or next_key_out is not None):
        raise UsageError(
            f"{name} was issued: --void-from and --next-key-out go with CHAIN, its issuer's answer"
        )


def check_committed(rotation: Rotation, reached: Reach) -> None:
    """Before an issuer is asked for anything: the key is the next one, if there is a registry that knows.

    Raises:
        UsageError: it is another.
        AutolinkError: what the registry says is not so.
    """

    async def work(client: RegistryClient) -> bool:
        with on_record(rotation.auto_id):
            return await may_follow(client, rotation.auto_id, keys.hash_of_key(rotation.key.public_key()))

    name, unknown = rotation.name, "so nobody knows yet whether this is the next key of"
    try:
        if not reached.use(work):
            raise UsageError(
                f"the key in {display(str(rotation.file))} is not the one that {name} has committed to on record"
            )
    except NotOnRecord:
        say(f"the registry does not have {name} on record, {unknown} {name}")
    except (LinkLost, Refused, CallError, TimeoutError) as error:
        say(f"the registry does not answer ({error or 'too late'}), {unknown} {name}")


def give_request(rotation: Rotation, output: Path, *, as_json: bool) -> None:
    """Write the request for the next key of an identity that was issued. Nothing is changed by it."""
    asked = CredentialRequest.from_key(rotation.own[0].common_name, rotation.key)
    if as_json:
        print_json({"ok": True, "name": rotation.name, "request": asked.pem.decode()})
    if not as_json or str(output) != "-":
        write(output, asked.pem)
    issuer = show_name(rotation.own[1].common_name)
    say(
        f"Nothing has changed. Have {issuer} issue this request (autolink id issue). Then its answer, CHAIN, goes on record "
        f"and in place: {rotation}"
    )


def complete(
    rotation: Rotation, chain: Path | None, reached: Reach, *, after: Path | None, void_from: int | None,
    yes: bool, lifetime: timedelta | None, passphrase_file: Path | None, unencrypted: bool, as_json: bool,
) -> None:  # fmt: skip
    """Put the rotation on record, and then the key in place.

    Args:
        chain: the issuer's answer; None where the name is plain.
        after: where the key after this one lies, or goes.

    Raises:
        UsageError, IdentityError, OSError: it cannot be.
        EntryRefused: the registry does not take it; NOT_COMMITTED: not this key.
        NotOnRecord, AutolinkError, TimeoutError: nothing is known.
    """
    name, auto_id, store = rotation.name, rotation.auto_id, Keystore()
    answer = None if chain is None else _read_answer(rotation, chain)
    check_void_from(reached, auto_id, void_from, yes=yes)
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    kept = after or _after(name, rotation.file)
    following = _key_after(kept, rotation, passphrase, passphrase_file, unencrypted=unencrypted)
    credential = answer or _certify(rotation, reached, following, lifetime)
    lost = rotation.certificates is not None
    if lost:  # no key is here that this could replace, and what proves the entry is kept with the identity
        _save_new(name, credential, passphrase, unencrypted=unencrypted)
    submission = Submission(
        auto_id, lambda slot: making.rotate(credential, slot, next_key=following, void_from=void_from), name
    )
    try:
        recorded = submission.append(reached)
    except (click.ClickException, AutolinkError, OSError) as error:
        if isinstance(error, EntryRefused) and error.fault is Fault.NOT_COMMITTED:
            error.add_note(f"the key in {display(str(rotation.file))}")
        if lost:
            error.add_note(f"{name} is in the keystore, and not on record: repeat it without --certificates")
        raise
    store.rotate(name, credential, passphrase=passphrase, unencrypted=unencrypted)
    facts = {"name": name, **describe(credential.certificates), "next_key_file": str(kept)}
    if as_json:
        print_json({"ok": True, **facts, "on_record": recorded})
        return
    print_facts(facts)
    print_facts(recorded)
    say_where(kept, unencrypted=unencrypted)
    say(f"The key from {display(str(rotation.file))} is in use from now on: that file is needed no more.")


def _read_answer(rotation: Rotation, chain: Path) -> Credential:
    """The issuer's answer, if it is for this ID and this key."""
    certificates, rotations = split_chain(read_chain(chain))
    if certificates[0].spki != rotation.spki:
        raise UsageError(
            f"{display(str(chain))} is over another key than the one in {display(str(rotation.file))}: have the request "
            f"issued that `autolink id rotate {rotation.name}` writes without CHAIN"
        )
    credential = Credential(certificates, rotation.key, rotations=rotations)
    if credential.auto_id != rotation.auto_id:
        raise UsageError(
            f"{display(str(chain))} is of {credential.auto_id}, and {rotation.name} is {rotation.auto_id}"
        )
    return credential


def _certify(rotation: Rotation, reached: Reach, following: bytes, lifetime: timedelta | None) -> Credential:
    """A plain name's certificate; of an attempt whose end was not heard of, the one that is on record."""

    async def work(client: RegistryClient) -> Certificate:
        with on_record(rotation.auto_id):
            return Certificate.parse_untrusted((await client.place(rotation.auto_id)).certificate)

    for certificate in (rotation.own[0], reached.use(work)):
        if (certificate.auto_id, certificate.spki) == (rotation.auto_id, rotation.spki):
            return Credential((certificate,), rotation.key)
    return Credential.rotated(rotation.own, rotation.key, next_key_hash=following, lifetime=lifetime)


def _after(name: str, next_key: Path) -> Path:
    """Where the key after goes if nobody says: to the same place when the command is repeated."""
    number = re.fullmatch(r".*\.next-key-([0-9]{1,9})", next_key.name)
    return Path(f"{name}.next-key-{int(number[1]) + 1 if number else 2}")


def _key_after(
    path: Path, rotation: Rotation, passphrase: str | None, passphrase_file: Path | None, *, unencrypted: bool
) -> bytes:
    """The hash of the key that is committed to now; it is made if its file is not there.

    Raises:
        UsageError: it is the one that comes into use.
        KeystoreError, OSError: the file cannot be used.
    """
    if not path.exists():
        key = keys.generate(keys.key_type(rotation.key.public_key()))
        save_key(path, key, passphrase, unencrypted=unencrypted)
    else:
        key = open_key(path, passphrase_file)
    if keys.spki(key.public_key()) == rotation.spki:
        raise UsageError(
            f"{display(str(path))} holds the key that comes into use now: give --next-key-out another file"
        )
    return keys.hash_of_key(key.public_key())


def _save_new(name: str, credential: Credential, passphrase: str | None, *, unencrypted: bool) -> None:
    """As if it had been requested here, where it was issued: so its next renewal can be asked for."""
    store = free(name)
    if len(credential.chain) == 1:
        store.save_new(name, credential, passphrase=passphrase, unencrypted=unencrypted)
        return
    asked = CredentialRequest.from_key(credential.name, credential.private_key)
    store.save_request(name, asked, passphrase=passphrase, unencrypted=unencrypted)
    store.accept(name, credential.certificates)
