"""Agents, not only their streams: met by the openssl command and the standard library, and with imported identities."""

import json
import shutil
import socket
import ssl
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autolink import EntityKind
from autolink.codec import decode_untrusted
from autolink.identity import UpstreamIdentity, dump_chain
from autolink.testing import Authority, link_pair
from autolink.trust import IssuedBy

pytestmark = pytest.mark.anyio

UPSTREAM = Path(__file__).parents[1] / "vectors" / "upstream"
HELLO, REFUSE = 1, 3
NONSENSE = b"GET / HTTP/1.1\r\n\r\n" * 8


@pytest.fixture
def parties(tmp_path):
    """An agent of acme's that believes globex, and files of an agent of globex's for other programs."""
    acme, globex = Authority("acme"), Authority("globex")
    theirs = globex.issue("visitor")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(dump_chain(theirs.chain))
    key.write_bytes(theirs.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return acme.agent("host", trust=IssuedBy(globex.anchor)), chain, key


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 5:
        kind, size = struct.unpack(">BI", data[:5])
        found.append((kind, data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def reason_in(data: bytes) -> str:
    """The reason of the REFUSE that follows the agent's HELLO."""
    (hello, _), (refuse, payload) = frames(data)
    assert (hello, refuse) == (HELLO, REFUSE)
    return decode_untrusted(payload, what="refusal")["reason"]


async def test_the_standard_librarys_ssl_links_with_an_agent_and_nonsense_gets_a_refusal(parties):
    """The mutual handshake and the agent's HELLO; then a frame of no known type is answered with REFUSE and a clean end."""
    agent, chain, key = parties
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["autolink/1"])
    context.load_cert_chain(chain, key)

    def talk(port: int) -> tuple[str | None, bytes]:
        with socket.create_connection(("127.0.0.1", port), 20) as raw, context.wrap_socket(raw) as tls:
            tls.sendall(NONSENSE)
            said = b""
            while data := tls.recv(4096):
                said += data
            return tls.selected_alpn_protocol(), said

    async with agent.listening("127.0.0.1:0") as listener:
        port = int(listener.addresses[0].rpartition(":")[2])
        alpn, said = await anyio.to_thread.run_sync(talk, port)
    assert alpn == "autolink/1"
    assert reason_in(said) == "malformed"
    assert agent.statistics().opened == 0


async def test_s_client_links_with_an_agent_and_nonsense_gets_a_refusal(parties):
    agent, chain, key = parties
    if not shutil.which("openssl"):
        pytest.skip("S_CLIENT DID NOT MEET AN AGENT: the openssl command is not installed")
    async with agent.listening("127.0.0.1:0") as listener:
        command = ["openssl", "s_client", "-connect", listener.addresses[0], "-tls1_3", "-alpn", "autolink/1"]
        command += ["-cert", str(chain), "-cert_chain", str(chain), "-key", str(key), "-quiet", "-ign_eof"]
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(command, input=NONSENSE, capture_output=True, timeout=25, check=False)
        )
    assert reason_in(done.stdout) == "malformed", done.stderr
    assert agent.statistics().opened == 0


@pytest.mark.parametrize("key", ["ed25519", "rsa2048"])
@pytest.mark.parametrize("sdk", ["python", "typescript"])
async def test_an_identity_made_by_upstreams_sdk_is_imported_and_linked(sdk, key):
    """Both sides hold what upstream's SDK made: its root, imported, issues the leaf anew, and they call each other."""
    stored = json.loads((UPSTREAM / f"{sdk}.json").read_text())

    def load(name: str) -> UpstreamIdentity:
        entry = stored[f"{key}.{name}"]
        return UpstreamIdentity.from_pem(entry["certificate"].encode(), entry["key"].encode())

    root = load("root").self_issue(now=datetime.now(UTC))
    request = load("leaf").request()
    imported = request.complete(root.issue(request, kind=EntityKind.AGENT))
    acme = Authority("acme")
    host = acme.agent("host", trust=IssuedBy(root.anchor))
    visitor = type(host)(imported, trust=IssuedBy(acme.anchor))

    @host.method
    async def hello(call, text: str) -> str:
        return f"{call.peer.name} said {text}"

    async with link_pair(visitor, host) as (link, _):
        assert await link.call("hello", "hi", returns=str) == "Test said hi"
