"""From an entry to what is kept of it: how the commands of `on_record` have it signed, submitted and remembered."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.keeping import keep, keep_promise
from autolink.cli.options import read, write
from autolink.cli.passphrase import load_identity, new_passphrase, passphrase_for
from autolink.cli.recorded import Recorded, find_again, find_certificate, not_active
from autolink.cli.registry_link import NotOnRecord, Reach, on_record
from autolink.cli.registry_look import entry_text
from autolink.cli.show import print_facts, print_json, say
from autolink.errors import EntryRefused, Fault, IdentityError, SetupError, UsageError, display
from autolink.identity import AutoId, Certificate, Credential, Keystore, keys, save_key
from autolink.identity.keys import PrivateKey
from autolink.identity.sealed import KEY_BYTES, is_sealed, unseal
from autolink.messages import instant
from autolink.registry.answers import Place
from autolink.registry.client import RegistryClient
from autolink.registry.entries import SALT, Entry, Guardians, Op, decode_leaf_untrusted
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.making import LIFETIME_MOST, Slot, missing
from autolink.registry.submitter import Logged

GUARDIANS_BYTES: Final = 64 * limits.KIB
"""Of a file of guardians: more than `limits.GUARDIANS` of them take."""

_WHAT: Final = (
    "Who may recover an Auto ID. The registry knows them by hashes alone: without these salts nobody can name them to it, "
    "and nothing is recovered. Keep this file where it is not lost together with the keys."
)


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be submitted, and where it is remembered.

    Attributes:
        auto_id: whose entry it is.
        make: the signed entry, for its slot.
        keep_in: name of the identity in the keystore in whose folder the receipt and proof go.
        registers: the ID has no place yet.
    """

    auto_id: AutoId
    make: Callable[[Slot], Entry]
    keep_in: str
    registers: bool = False

    def submit(self, reached: Reach, *, as_json: bool, **more: object) -> None:
        """As `append`, and tell it."""
        _tell(self.append(reached) | more, as_json=as_json)

    def append(self, reached: Reach) -> dict[str, object]:
        """Have it appended, and keep what proves that.

        An answer may have been lost: what is refused because it is on record already, just so, is found there.

        Returns:
            What has changed.

        Raises:
            EntryRefused, AutolinkError, TimeoutError: nothing was appended, or nothing is known.
            NotOnRecord: nor is the ID.
        """

        promised: list[tuple[Entry, bytes]] = []  # and not settled

        async def work(client: RegistryClient) -> dict[str, object]:
            with on_record(self.auto_id):
                place = None if self.registers else await client.place(self.auto_id)
            entry = self.make(Slot.at(reached.log_key.name, datetime.now(UTC), place))
            try:
                logged: Logged | Recorded = await client.submit(
                    entry, promised=lambda promise: promised.append((entry, promise))
                )
            except EntryRefused as error:
                logged = await find_again(client, entry, error)
            promised.clear()
            return await _take(client, logged, self.keep_in)

        try:
            return reached.use(work)
        except BaseException as error:  # whatever kept the answer away: a lost link, the time, or a person
            if isinstance(error, EntryRefused):
                vars(error)["auto_id"] = self.auto_id  # for what its owner is to ask the registry's keeper
            for entry, promise in promised:
                keep_promise(self.keep_in, entry, promise, error)
            raise


def fetch(name: str, credential: Credential, reached: Reach, *, as_json: bool) -> bool:
    """Keep with NAME, and tell, what proves the entry that has brought its certificate, such as one that was submitted from
    another machine.

    Returns:
        Whether there is one: that certificate is in force there.

    Raises:
        EntryRefused: there is one, and the ID is not active.
    """

    async def work(client: RegistryClient) -> dict[str, object] | None:
        try:
            with on_record(credential.auto_id):
                said = (await client.status(credential.auto_id)).status
        except NotOnRecord:
            return None
        found = await find_certificate(client, said, credential.leaf.der)
        if found is not None and (stands := not_active(said)):
            raise EntryRefused(Fault.TAKEN, f"{name} is on record as entry {found.index}, and {stands}")
        return None if found is None else await _take(client, found, name)

    if facts := reached.use(work):
        _tell(facts, as_json=as_json)
    return facts is not None


def _tell(facts: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)


async def _take(client: RegistryClient, logged: Logged | Recorded, keep_in: str) -> dict[str, object]:
    """Keep what proves an entry, before anything else can fail, and say how the ID stands with it."""
    entry = decode_leaf_untrusted(logged.leaf)[1]
    op = entry.op.name.lower()
    contents = {"leaf": logged.leaf, "tlog-proof": logged.proof.to_bytes()}
    if isinstance(logged, Logged):
        contents["receipt"] = logged.receipt
    else:
        say(f"already on record as entry {logged.index}")
    log = client.log_key.key_id.hex()  # the same index of another log is another entry
    kept = keep(keep_in, f"{log}-{logged.index}-{op}", contents)
    await client.go_on_with(verify_checkpoint(logged.proof.checkpoint, client.log_key))
    state = (await client.status(entry.auto_id)).status.state.value
    ready = (await client.place(entry.auto_id)).recovered_at
    return {
        "entry": op,
        "auto_id": entry.auto_id.hex,
        "index": logged.index,
        "logged_at": instant(logged.logged_at),
        "state": state,
        "says": entry_text(entry) or None,
        "takes_over_at": None if ready is None else instant(ready),
        "kept": f"{kept}.tlog-proof",
    }


# --- entries in files --------------------------------------------------------------------------------------


def write_entry(path: Path, make: Callable[[Slot], Entry], origin: str, place: Place | None = None) -> None:
    """Write an entry for others to sign, good for as long as a log allows; say who they are."""
    entry = make(Slot.at(origin, datetime.now(UTC), place, lifetime=LIFETIME_MOST))
    write(path, entry.to_bytes())
    who = ", ".join(map(str, missing(entry))) or "its issuer"
    say(
        f"it wants the signature of {who}, until {instant(entry.expires_at):%F %T} UTC: there, autolink id countersign NAME "
        f"{display(str(path))}"
    )


def read_entry(path: Path) -> Entry:
    """The entry in a file.

    Raises:
        IdentityError: it holds none.
        OSError: it cannot be read.
    """
    name = display(str(path))
    with about(name):
        data = read(path, limits.ENTRY)
        try:
            return Entry.from_untrusted(data)
        except EntryRefused as error:
            raise IdentityError(f"{name} holds no entry") from error


def describe_entry(entry: Entry, *, names: bool = False) -> dict[str, Any]:
    """For whoever is about to sign or submit it. Who has signed is what it says itself: a log will check that.

    Args:
        names: with those beside the Auto IDs that the keystore has for them: for people.

    Raises:
        IdentityError: its certificate is malformed.
    """
    show = named if names else str
    certificate = Certificate.parse_untrusted(entry.certificate) if entry.certificate else None
    return {
        "entry": entry.op.name.lower(),
        "auto_id": show(entry.auto_id),
        "common_name": None if certificate is None else certificate.common_name,
        "log": entry.origin,
        "says": entry_text(entry) or None,
        "expires_at": instant(entry.expires_at),
        "signed_by": tuple(_signer(entry, one.by) if names else str(one.by) for one in entry.signatures),
        "missing": _away(entry, show),
    }


def _signer(entry: Entry, by: AutoId) -> str:
    """For people: a recovery has the word of the key that it gives the ID, and none of the ID's owner."""
    return "the new key itself" if entry.op is Op.RECOVER and by == entry.auto_id else named(by)


def check_log(entry: Entry, log_key: VerifierKey) -> None:
    """An entry is for the log of this key.

    Raises:
        UsageError: it is for another one.
    """
    if entry.origin != log_key.name:
        raise UsageError(f"this entry is for the log {display(entry.origin)}, not {display(log_key.name)}")


def check_complete(entry: Entry, log_key: VerifierKey) -> None:
    """An entry may be submitted to the log of this key: it has all its signatures.

    Raises:
        UsageError: it is for another log.
        SetupError: it has not.
    """
    check_log(entry, log_key)
    if away := _away(entry, named):
        raise SetupError(
            f"still missing: {', '.join(away)}: pass the entry on (autolink id countersign NAME FILE, without --submit)"
        )


def submit_entry(entry: Entry, reached: Reach, keep_in: str, *, as_json: bool) -> None:
    """Submit an entry that is complete."""
    registers = entry.op is Op.REGISTER
    Submission(entry.auto_id, lambda _: entry, keep_in, registers).submit(reached, as_json=as_json)


def _away(entry: Entry, show: Callable[[AutoId], str]) -> tuple[str, ...]:
    """Who still has to sign."""
    if entry.op is Op.RECOVER and not entry.revealed and len(entry.signatures) == 1:
        return ("its issuer",)  # whom a recovery does not name
    return tuple(map(show, missing(entry)))


def named(auto_id: AutoId) -> str:
    """An Auto ID, with the name of an identity of this keystore that has it."""
    here = in_keystore(auto_id)
    return f"{auto_id}" if here is None else f"{auto_id} ({here})"


# --- keys --------------------------------------------------------------------------------------------------


def next_key_hash(
    name: str, credential: Credential, path: Path | None, passphrase_file: Path | None, *, unencrypted: bool
) -> tuple[bytes | None, Path | None]:
    """What an entry is to commit to: None where the certificate says it; else the key in the file, made if it is not there.

    Returns:
        The hash, and the file.

    Raises:
        UsageError: the certificate says it already, or there is no passphrase.
        KeystoreError: the file cannot be used.
    """
    if credential.leaf.next_key_hash is not None:
        if path is not None:
            raise UsageError(
                f"the certificate of {name} commits to its next key itself: leave --next-key out"
            )
        return None, None
    path = path or Path(f"{name}.next-key")
    if path.exists():
        return keys.hash_of_key(open_key(path, passphrase_file).public_key()), path
    key = keys.generate(credential.key_type)
    passphrase = new_passphrase(f"the next key of {name}", passphrase_file, unencrypted=unencrypted)
    save_key(path, key, passphrase, unencrypted=unencrypted)
    say(f"The next key of {name} is in {display(str(path))}: move it to another place than this machine.")
    return keys.hash_of_key(key.public_key()), path


def open_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """The key in a file of its own, its passphrase asked for only where it needs one.

    Raises:
        IdentityError, OSError: it cannot be read, or holds no key that this passphrase opens.
        UsageError: there is no passphrase.
    """
    with about(display(str(path))):
        data = read(path, KEY_BYTES)
    passphrase = passphrase_for(str(path), passphrase_file) if is_sealed(data) else None
    with about(display(str(path))):
        return unseal(data, passphrase)


def in_keystore(auto_id: AutoId, spki: bytes | None = None) -> str | None:
    """The name of an identity in the keystore, by its Auto ID and, if given, its key."""
    store = Keystore()
    for name in store.names():
        try:
            leaf = store.chain(name)[0]
        except IdentityError:  # a request without a chain, or an entry that cannot be read
            continue
        if leaf.auto_id == auto_id and spki in (None, leaf.spki):
            return name
    return None


def issuer_of(name: str, credential: Credential, passphrase_file: Path | None) -> Credential:
    """The issuer of an identity, from the same keystore.

    Raises:
        UsageError: it is not there, and the entry must travel; or it has gone on to another key.
    """
    certificate = credential.chain[1]
    found = None if certificate.auto_id is None else in_keystore(certificate.auto_id, certificate.spki)
    if found is None and certificate.auto_id and (changed := in_keystore(certificate.auto_id)):
        raise UsageError(
            f"{changed}, the issuer of {name}, has another key now: have it issued again (autolink id export {name} "
            "--request, id issue, id accept)"
        )
    if found is None:
        raise UsageError(
            f"the issuer of {name} is not in this keystore, and has to sign too: write the entry with --out FILE, and have "
            "it signed there: autolink id countersign ISSUER FILE --submit"
        )
    return load_identity(found, passphrase_file)


# --- guardians ---------------------------------------------------------------------------------------------


def guardians_text(auto_id: AutoId, origin: str, chosen: Guardians, salts: Mapping[AutoId, bytes]) -> bytes:
    """What a file says of who the guardians are."""
    listed = [{"auto_id": guardian.hex, "salt": salt.hex()} for guardian, salt in salts.items()]
    told = {
        "what": _WHAT, "auto_id": auto_id.hex, "log": origin, "threshold": chosen.threshold,
        "delay_seconds": chosen.delay, "guardians": listed,
    }  # fmt: skip
    return (json.dumps(told, indent=2) + "\n").encode()


def load_guardians(path: Path, auto_id: AutoId) -> tuple[int, dict[AutoId, bytes]]:
    """The threshold, and each guardian's salt.

    Raises:
        UsageError: the file is none, or another ID's.
        IdentityError, OSError: it cannot be read.
    """
    with about(display(str(path))):
        data = read(path, GUARDIANS_BYTES)
    try:
        match json.loads(data):
            case {"auto_id": str(whose), "threshold": int(threshold), "guardians": list(listed)}:
                salts = {AutoId.parse(one["auto_id"]): bytes.fromhex(one["salt"]) for one in listed}
            case _:
                raise ValueError("other fields")
        if any(len(salt) != SALT for salt in salts.values()):
            raise ValueError("a salt of another length")
    except (ValueError, TypeError, KeyError, RecursionError, IdentityError) as error:
        raise UsageError(
            f"{display(str(path))} is no file of guardians, as `autolink id register` writes it ({error})"
        ) from None
    if whose != auto_id.hex:
        raise UsageError(f"{display(str(path))} names the guardians of {display(whose)}, not of {auto_id}")
    return threshold, salts
