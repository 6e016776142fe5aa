"""A bound name over a key that it does not lead to, for `autolink id recover`."""

from datetime import UTC, datetime
from pathlib import Path

from autolink.cli.making import save_with_next_key, say_where
from autolink.cli.registry_link import Reach, on_record
from autolink.errors import BadSignature, UsageError
from autolink.identity import AutoId, Certificate, Credential, Keystore, key_authority, keys, show_name
from autolink.identity.names import split_bound
from autolink.registry import making
from autolink.registry.client import RegistryClient
from autolink.registry.log.note import VerifierKey


def make_successor(
    name: str, auto_id: AutoId, reached: Reach, next_key: Path | None, passphrase_file: Path | None, *, unencrypted: bool
) -> None:  # fmt: skip
    """Store as `name` a fresh key for an Auto ID of a bound name that is on record."""

    async def work(client: RegistryClient) -> Certificate:
        with on_record(auto_id):
            place = await client.place(auto_id)
        return Certificate.parse_untrusted(place.certificate)

    credential = making.successor(reached.use(work), reached.log_key, now=datetime.now(UTC))
    if credential.auto_id != auto_id:
        raise BadSignature("the registry gives another Auto ID's certificate than was asked for")
    kept = save_with_next_key(
        Keystore(), name, credential, next_key, passphrase_file, unencrypted=unencrypted
    )
    if kept is not None:
        say_where(kept, unencrypted=unencrypted)


def check_may_succeed(credential: Credential, log_key: VerifierKey) -> None:
    """A self-issued identity of a plain name may always be tried; of a bound one, it must name the log."""
    log = key_authority(keys.hash_of_key(log_key.public))
    if split_bound(credential.name) is None or credential.peer_id.authority == log:
        return
    raise UsageError(
        f"{show_name(credential.name)} is bound to its keys: its next key takes it back (autolink id rotate). Without that, "
        "guardians give it one that those believe who believe the registry: autolink id recover NEW --of "
        f"{credential.auto_id}"
    )
