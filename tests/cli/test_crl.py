"""`autolink id publish-crl`: an issuer's revocation list from the log to whoever fetches it."""

import subprocess
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
from cryptography import x509

from autolink.cli import crl
from autolink.identity import Keystore, issuing
from tests.cli.registries import Lies, id_of, pass_a_second

PUBLISH = ("id", "publish-crl", "acme")


def served(registry: Any, auto_id: str) -> x509.CertificateRevocationList:
    answer = httpx.get(f"{registry.url}/v1/ids/{auto_id}/crl")
    assert answer.status_code == 200
    return x509.load_der_x509_crl(answer.content)


def test_an_issuer_publishes_what_is_revoked_of_what_it_has_issued(sh, registry):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    first = sh.json(*PUBLISH)
    assert (first["revoked"], first["auto_id"]) == (0, id_of(sh, "acme"))
    assert httpx.get(registry.url + first["path"]).status_code == 200
    sh.ok("id", "revoke", "echo", "--by", "acme", "--yes")
    told = sh.json(*PUBLISH, "--days", "1")
    assert (told["revoked"], told["log_entries"]) == (1, first["log_entries"] + 1)
    found = served(registry, told["auto_id"])
    assert [one.serial_number for one in found] == [Keystore().chain("echo")[0].x509.serial_number]
    assert f"{found.last_update_utc:%FT%TZ}" == told["this_update"]
    assert (found.next_update_utc - found.last_update_utc).days == 1
    number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number == int(told["number"], 16) > int(first["number"], 16)


def test_an_issuer_who_serves_its_list_itself_writes_it_to_a_file(sh, registry):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    sh.ok("id", "revoke", "echo", "--by", "acme", "--yes")
    told = sh.json(*PUBLISH, "-o", "acme.crl")
    assert (told["revoked"], told["path"]) == (1, None)
    sh.ok(*PUBLISH, "-o", "acme.pem")
    lists = [
        x509.load_der_x509_crl((sh.path / "acme.crl").read_bytes()),
        x509.load_pem_x509_crl((sh.path / "acme.pem").read_bytes()),
        x509.load_der_x509_crl(sh(*PUBLISH, "-o", "-").stdout_bytes),
    ]
    serial = Keystore().chain("echo")[0].x509.serial_number
    assert [[one.serial_number for one in found] for found in lists] == [[serial]] * 3
    assert httpx.get(f"{registry.url}/v1/ids/{id_of(sh, 'acme')}/crl").status_code == 404


def test_a_last_list_of_the_old_key_beside_the_new_one_keeps_whom_that_has_issued(sh, monkeypatch):
    """OpenSSL takes for each certificate the list by the key that issued it, and refuses one for which there is none."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    sh.ok("id", "export", "echo", "--chain", "-o", "echo.pem")
    sh.ok(*PUBLISH, "--days", "31", "-o", "last.crl.pem")
    pass_a_second(monkeypatch)
    sh.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    sh.ok(*PUBLISH, "-o", "new.crl.pem")
    sh.ok("id", "export", "acme", "--chain", "-o", "roots.pem")
    (sh.path / "both.pem").write_text(
        (sh.path / "last.crl.pem").read_text() + (sh.path / "new.crl.pem").read_text()
    )
    request = sh.ok("id", "export", "echo", "--request")
    (sh.path / "again.pem").write_text(sh.ok("id", "issue", "-", "--as", "acme", stdin=request))

    def verified(chain: str, lists: str) -> bool:
        command = ["openssl", "verify", "-crl_check", "-CAfile", "roots.pem", "-CRLfile", lists, chain]
        done = subprocess.run(command, cwd=sh.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "unable to get certificate CRL" in done.stderr
        return done.returncode == 0

    assert not verified("echo.pem", "new.crl.pem")
    assert not verified("again.pem", "last.crl.pem")
    assert verified("echo.pem", "both.pem")
    assert verified("again.pem", "both.pem")


def test_a_list_of_the_same_second_is_not_published_again(sh, monkeypatch):
    class Still(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return moment

    sh.ok("id", "register", "acme")
    moment = datetime.now(tz=Keystore().chain("acme")[0].not_before.tzinfo)
    monkeypatch.setattr(crl, "datetime", Still)
    assert sh.ok(*PUBLISH).startswith("auto id")
    assert "serves a list that is as new, or newer" in sh.fails(1, *PUBLISH)


def test_who_cannot_publish_one_is_told_why(sh, monkeypatch):
    assert "'echo' may not issue" in sh.fails(1, "id", "publish-crl", "echo")
    assert "not on record" in sh.fails(1, *PUBLISH)
    assert "no such identity" in sh.fails(1, "id", "publish-crl", "nobody")


def test_an_issuer_from_before_lists_is_renewed_first(sh, monkeypatch):
    usage = issuing._usage

    def without(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
        most = usage(digital_signature=digital_signature, key_cert_sign=key_cert_sign)
        flags = dict.fromkeys(("content_commitment", "data_encipherment", "key_encipherment"), False)
        flags |= dict.fromkeys(("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
        return x509.KeyUsage(most.digital_signature, key_cert_sign=most.key_cert_sign, **flags)

    with monkeypatch.context() as patch:
        patch.setattr(issuing, "_usage", without)
        sh.ok("id", "new", "old", "--unencrypted")
    sh.ok("id", "register", "old")
    line = sh.fails(1, "id", "publish-crl", "old")
    assert "old: this certificate may not sign revocation lists (keyUsage): renew it" in line
    pass_a_second(monkeypatch)
    sh.ok("id", "renew", "old")
    assert sh.json("id", "publish-crl", "old")["revoked"] == 0


def test_no_list_is_made_from_a_log_that_is_not_what_was_signed(sh, registry, monkeypatch):
    sh.ok("id", "register", "acme")
    sh.ok("id", "revoke", "acme", "--yes")  # so there are two entries at least, and another order is a lie
    with monkeypatch.context() as patch:
        Lies(patch).tell("entries", lambda leaves: leaves[::-1])
        assert "not those that its log has signed" in sh.fails(1, *PUBLISH)
    with monkeypatch.context() as patch:
        Lies(patch).tell(
            "status", lambda verified: replace(verified, checkpoint=replace(verified.checkpoint, size=0))
        )
        assert "not to be gone by" in sh.fails(1, *PUBLISH)
    assert httpx.get(f"{registry.url}/v1/ids/{id_of(sh, 'acme')}/crl").status_code == 404
