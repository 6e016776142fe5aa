"""Every bound of the system in one place: what it limits, why that value, whose precedent.

A number that a peer can push is bounded here before any code reads it. Sizes are bytes, times seconds.
Nothing here is settable through the wire: HELLO announces a side's limits, it never raises the other's.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- bytes on the wire -------------------------------------------------------------------------------------

MESSAGE: Final = 1 * MIB
"""One encoded body. Whole in memory on both ends; larger payloads are byte streams. (NATS: 1 MiB, gRPC: 4 MiB.)"""

LEAF: Final = MESSAGE + 256 * KIB
"""One signed message with its fields around the body, or one Envelope handed on inside a message: the
slack holds a chain (CHAIN_BYTES), a proof and the headers."""

PIECE: Final = 64 * KIB
"""Bytes in one leaf of the trees whose roots are signed over a byte stream and over each chunk of it."""

CHUNK: Final = 6 * PIECE
"""Bytes in one chunk of a byte stream. Beside hashing, sealing and moving its bytes a chunk costs each end 0.1 to 0.2 ms,
signature included; a call beside the stream waits for two of them."""

PART: Final = 4 * KIB
"""Less than that is copied where it joins a chunk or a frame: kept apart, it would cost an object, and a TLS record."""

BATCH_LEAVES: Final = 256
"""Messages under one signature: a proof is then at most 8 hashes; beyond 64 the gain per message is below 1 us."""

BATCH_BYTES: Final = 64 * KIB
"""A batch is closed when it reaches this size; a single larger message is a batch of its own."""

BATCH_BULK: Final = CHUNK + 8 * KIB
"""... unless the next message fits into this: a chunk of a byte stream, and what others have to say. Not more: a call beside
the stream waits for the batch that is being written."""

FRAME: Final = LEAF + BATCH_BYTES + 8 * KIB
"""Payload of one frame. The largest is a BATCH: up to BATCH_BYTES of messages, one of LEAF that closed it, a
signature (SIGNATURE) and the head of each item."""

HELLO: Final = 64 * KIB
"""Payload of HELLO, EVIDENCE and ACCEPT: a chain of ML-DSA certificates (4 x 6 KB) and evidence fit."""

HELLO_KEPT: Final = 2 * KIB
"""Payload of the longest HELLO whose meaning is remembered, and ..."""

HELLOS_KEPT: Final = 64
"""... how many: HELLOs of one program differ in the clock. A stranger's may take 70 times as much in memory, so 9 MB."""

CONTROL: Final = 1 * KIB
"""Payload of every other frame (REFUSE, CREDIT, CANCEL, PING, PONG, GOAWAY)."""

# --- decoding ----------------------------------------------------------------------------------------------

NODES: Final = 64 * KIB
"""Elements in one decoded msgpack value: msgpack amplifies 64-72 times (1 MiB of 0x80 becomes 76 MB)."""

CONTROL_NODES: Final = 1_024
"""... and in the map of a HELLO or another control frame: a stranger's 60 KB of empty maps took 25 ms to build."""

DEPTH: Final = 32
"""Nesting of one decoded value. (Protocol Buffers: 100; JSON parsers: 64 to 1,000.)"""

HEADERS: Final = 32
"""Entries in a message's headers."""

HEADERS_BYTES: Final = 8 * KIB
"""Keys and values of a message's headers together. (HTTP servers: 8 KiB.)"""

METHOD: Final = 255
"""Bytes of a method, channel or topic name."""

# --- certificates ------------------------------------------------------------------------------------------

CHAIN: Final = 4
"""Certificates in a chain, leaf and self-issued root included: an organisation, a department, a team, an agent."""

CHAIN_BYTES: Final = 64 * KIB
"""DER of a whole presented chain. Four ML-DSA-65 certificates are about 24 KB."""

CERTIFICATE: Final = 8 * KIB
"""DER of one certificate: one of ML-DSA-65 has 5.8 KB, key and signature being 5.3 of them."""

CERTIFICATE_REST: Final = 1 * KIB
"""... and what it may say besides its key and its signature, which ours do in about 500 bytes. Parsed it takes up to 45
times the memory, and the parsed certificates of strangers are kept for a while."""

COMMON_NAME: Final = 64
"""Bytes of a common name (X.520 ub-common-name); a plain self-issued one has at most 32 (see names.py)."""

ROTATIONS: Final = 32
"""Earlier certificates that lead from a bound name's first key to the one in use: 2 ms of signatures, which a stranger can
make us verify; and ..."""

ROTATIONS_BYTES: Final = 40 * KIB
"""... their DER together, 32 times P-256 or 7 times ML-DSA-65: what fits into one HELLO or EVIDENCE frame beside a chain of
four ML-DSA certificates."""

LIFETIME_SELF_ISSUED_DAYS: Final = 3660
"""Validity of a self-issued certificate: ten years; rotation, not expiry, is what ends a root's key."""

LIFETIME_ISSUED_DAYS: Final = 825
"""Validity of an issued certificate. (CA/Browser Forum's last multi-year cap; ours also lie inside the issuer's.)"""

# --- a link ------------------------------------------------------------------------------------------------

OPENING: Final = 15.0
"""Seconds for TLS, HELLO, the trust model and ACCEPT together. (AnyIO's handshake: 30, OpenSSH LoginGraceTime: 120.)"""

VERDICT: Final = 10.0
"""Seconds that a trust model gets for one verdict: less than OPENING, so that the peer can still be told."""

HANDSHAKE_RECORDS: Final = 256
"""Records a peer may send before its TLS handshake is done. OpenSSL takes 100 KB of certificates: in records of one byte
that is one call of 80 ms, in records of 512, the smallest that anybody asks for, 200 of them."""

TICKET_KEY: Final = 3600.0
"""Seconds after which a listener's ticket key is replaced, and a session is no longer resumed: nothing proves the peer's key
to TLS meanwhile. (RFC 8446, section 4.6.1: at most 7 days; nginx and Go: 1 hour to 7 days.)"""

CHAINS_PASSED: Final = 64
"""Chains of listeners that a dialer need not examine again: 4 MiB of the largest."""

SESSIONS: Final = 1_024
"""TLS sessions that a dialer keeps to resume later, and ..."""

SESSIONS_BYTES: Final = 8 * MIB
"""... their bytes together: one holds the listener's leaf, 0.8 KB with P-256, 6 KB with ML-DSA-65."""

SESSIONS_EACH: Final = 32
"""... and of one listener: each is used once, so this many links to it can be opened at once and be resumed."""

ADDRESSES: Final = 16
"""Addresses of one name that are tried: a resolver can be made to return hundreds."""

BACKLOG: Final = 1024
"""Connections waiting to be accepted; the kernel caps it (net.core.somaxconn)."""

OPENINGS: Final = 256
"""Links being opened at once on one listener; one more waits in the accept queue."""

LINKS: Final = 16_384
"""Open links of one agent; one more is refused as `busy`."""

SKEW: Final = 60.0
"""Seconds two clocks may differ. (Kerberos: 300; we carry our own clock in HELLO and can be stricter.)"""

MESSAGE_LIFETIME: Final = 600.0
"""Seconds after which a message on a link is late: longer than any TCP stall worth surviving."""

ENVELOPE_LIFETIME: Final = 24 * 3600.0
"""Longest life of a message signed to be forwarded, hence how long its id is remembered."""

EARLY: Final = 256 * KIB
"""Bytes of frames that may ride behind a peer's ACCEPT before we have decided about it."""

CHANNELS: Final = 256
"""Channels one side may have open on a link, handlers still cleaning up included (CVE-2023-44487). (HTTP/2: 100.)"""

CREDIT: Final = 2 * BATCH_BULK
"""Unread bytes one channel may hold at its receiver: a batch of bulk is read while the next one is made, and a call beside
them waits for no more. One message larger than that may overdraw it when at most half is outstanding. A hostile peer's worst
on one link is CHANNELS x (CREDIT / 2 + LEAF). (QUIC in Go: 512 KiB.)"""

OUTBOX: Final = 2 * BATCH_BULK
"""Bytes waiting for a link's writer; a sender beyond that waits: small, because it delays a call beside bulk."""

OUTBOX_CHANNEL: Final = CHUNK
"""... of which one channel has no more than keeps the writer busy, so that a byte stream leaves room for calls."""

REPLIES: Final = 256
"""PONGs and cancels queued at once in answer to a peer; beyond that it is flooding and the link ends."""

IDLE_WAKEUPS: Final = 64
"""Wake-ups of a TLS reader in a row that bring no application data (KeyUpdate and ticket floods). An honest record of 16 KiB
may take 32 of them, in segments of 536 bytes (RFC 9293, section 3.7.1)."""

TLS_STEP: Final = 64 * KIB
"""Bytes fed to a memory-BIO TLS object per step, so that one call never holds the event loop; also read in one step, as long
as it is not known that they belong to something larger."""

TLS_TURN: Final = 272 * KIB
"""Bytes that one connection reads or writes before others get a turn: 0.1 to 0.2 ms, which a call beside a byte stream waits
at each end."""

REFUSAL_DRAIN: Final = 1.0
"""Seconds, and ..."""

REFUSAL_DRAIN_BYTES: Final = 4 * MIB
"""... bytes that are discarded after a refusal so that it arrives before a reset does."""

RECORDS: Final = 2**24
"""TLS records per direction before a link is re-made (RFC 8446, section 5.5 allows 2^24.5 with AES-GCM)."""

RECORDS_MOST: Final = 20_000_000
"""TLS records after which a link that could not be drained is ended: looked at twice a minute, it stays below 2^24.5."""

LINK_AGE: Final = 24 * 3600.0
"""Seconds before a link is re-made: nothing rekeys a live one."""

KEEPALIVE: Final = 30.0
"""Seconds of silence before a PING; as long again without an answer ends the link. (gRPC server: 20 to 7,200.)"""

RETRY: Final = 0.1
"""Seconds: the first back-off of a kept link; it doubles with each failure, with full jitter, up to ..."""

RETRY_MAX: Final = 30.0
"""... this many seconds. (gRPC: 120, NATS: 2.)"""

FLUSH: Final = 5.0
"""Seconds that closing a link waits for its queued messages to leave."""

TIMEOUT: Final = 366 * 24 * 3600 * 1_000_000
"""Microseconds: the longest deadline that travels with a call; a later one travels as this."""

DRAIN: Final = 30.0
"""Seconds that calls in flight get to end after GOAWAY. (Kubernetes' termination grace period: 30.)"""

OPENING_DRAIN: Final = 2.0
"""Seconds that links being opened get when a listener drains: several round trips round the world. A stranger that keeps
a connection open without a word delays the end by as much."""

# --- workers of one address --------------------------------------------------------------------------------

WORKERS: Final = 256
"""Processes that serve one address: more than one for each core gains nothing."""

OLD_WORKERS: Final = 8
"""Generations of workers that may be draining; a further one waits until there is room."""

WATCH: Final = 1.0
"""Seconds between two looks at the files that identity and trust were read from."""

WORKER_START: Final = 30.0
"""Seconds in which a worker must be ready, from its fork. It has nothing to load."""

WORKER_GRACE: Final = 5.0
"""Seconds beyond its time for draining after which a worker is killed: a handler that blocks heeds no order."""

# --- streams, topics, replay -------------------------------------------------------------------------------

TOPIC_BUFFER: Final = 64
"""Publications waiting for one subscriber when the publisher does not say."""

SUBSCRIBERS: Final = 16_384
"""Subscribers of one topic."""

REPLAY: Final = 1_000_000
"""Unexpired forwarded messages remembered by an agent; full means refuse `busy`, never forget. About 100 MB of SQLite."""

PROOF: Final = 16
"""Hashes in an Envelope's path; BATCH_LEAVES needs 8, other implementations may batch more."""

SIGNATURE: Final = 4 * KIB
"""Bytes of one signature: ML-DSA-65 has 3,309, RSA-4096 512."""

EVIDENCE: Final = 8
"""Items of evidence in an Envelope, and ..."""

EVIDENCE_BYTES: Final = 48 * KIB
"""... their bytes together: a time stamp, a status and a log proof, each with its own certificates."""

FRESH: Final = 600.0
"""Seconds for which a keystore's word that an identity is unused counts: a copy of it in an image or a backup says so for
ever, at every start."""

KNOWN_AGENTS: Final = 10_000
"""Entries in one known_agents file."""

VERDICTS: Final = 4_096
"""Accepted verdicts kept by an agent. Refusals are never kept, so strangers cannot evict one."""

VERDICTS_BYTES: Final = 16 * MIB
"""... and the certificates and evidence in them together: VERDICTS of the largest would be 300 MiB, and whoever is
believed can make a new one by sending other evidence. Of two P-256 certificates each, all of VERDICTS are 5 MiB."""

ISSUERS: Final = 1_024
"""Paths above a leaf, each by its exact bytes, about which a process remembers what it found. Only accepted peers' are."""

ISSUERS_BYTES: Final = 1 * MIB
"""... and their DER together: parsed it takes up to 45 times the memory. ISSUERS with one P-256 root each are 0.6 MiB."""

# --- a registry's entries ----------------------------------------------------------------------------------

ENTRY: Final = 48 * KIB
"""One signed entry. The largest, a recovery by GUARDIANS with ML-DSA signatures, has about 33 KB; a log's entry bundle
(C2SP tlog-tiles) ends at 64."""

ENTRY_LIFETIME: Final = 7 * 24 * 3600.0
"""Longest time from an entry's being seen to its expiry: an offline ceremony may take some days, and what was signed
and forgotten should not come up later."""

GUARDIANS: Final = 8
"""Guardians of one ID: each of them signs a recovery."""

RECOVERY_DELAY: Final = 7 * 24 * 3600
"""Seconds between a recovery and the new key's taking over, when the ID's owner has not chosen: long enough to notice."""

RECOVERY_DELAY_LEAST: Final = 3600
"""... shortest choice ..."""

RECOVERY_DELAY_MOST: Final = 90 * 24 * 3600
"""... and longest: whoever has lost a key waits as long."""

VOIDS: Final = 16
"""Times that an ID may declare void what a stolen key of its did; each costs every judgement of an ID below it."""

SERVICE: Final = 16 * KIB
"""One service record: addresses, and the methods offered with their schemas."""

SERVICE_OFFERS: Final = 256
"""Methods and channels that one record names, and ..."""

SERVICE_SCHEMA: Final = 4 * KIB
"""... bytes of one JSON schema in it: a model of some thirty fields."""

SERVICE_NODES: Final = 4_096
"""Elements of one record."""

SERVICE_LIFETIME: Final = 30 * 24 * 3600.0
"""Seconds that a service record is good for when nobody says, and ..."""

SERVICE_LIFETIME_MOST: Final = 366 * 24 * 3600.0
"""... from now at most: who has left an address may not send callers there for ever."""

SERVICE_BEHIND: Final = 256
"""Entries that an ID may have behind its service record: who looks for it reads them all. A daily renewal makes 30 in the
record's life."""

FINDING: Final = 30.0
"""Seconds from an Auto ID to a link: a registry asked, names resolved, and every address tried."""

# --- a registry's log --------------------------------------------------------------------------------------

LOG_ENTRIES: Final = 2**63 - 1
"""Entries of one log: SQLite and Go hold their numbers in 64 bits with a sign. A path to one has at most 63 hashes."""

LOG_ENTRY: Final = 65_535
"""Bytes of one entry: what the two bytes of its length in a bundle (c2sp.org/tlog-tiles) can say."""

LOG_TILES_KNOWN: Final = 16_384
"""Full tiles of whose inside a registry remembers what proofs take longest to compute: 20 MiB, for four million entries,
and for those above them 4."""

NOTE: Final = 128 * KIB
"""Bytes of a signed note. It must be able to carry 16 signatures (c2sp.org/signed-note): of ML-DSA-87 these are 98 KiB."""

NOTE_SIGNATURES: Final = 100
"""Signatures under one note: the witnesses of all who ask. (Go's sumdb/note: 100.)"""

CHECKPOINT_EXTENSIONS: Final = 16
"""Extension lines of a checkpoint, which its specification advises against."""

LOG_PROOF: Final = NOTE + 64 * KIB
"""Bytes of a self-contained proof: a checkpoint, 63 hashes (3 KiB), and the rest for what the application adds."""

INCLUSION: Final = 60.0
"""Seconds in which a log promises to have taken an entry that it has received. It takes milliseconds; what it cannot keep in
this time must not be promised. (Certificate Transparency's maximum merge delay: 24 hours.)"""

LOG_PAGE: Final = 256
"""Places, leaves or changes in one question or answer about a log: as many leaves as a tile has hashes."""

SUBMISSIONS: Final = 64
"""Entries that one submitter may have waiting for the log, and ..."""

SUBMISSIONS_ALL: Final = 4_096
"""... all of them together: two seconds' work, in at most 200 MB."""

ENTRIES_A_MINUTE: Final = 60.0
"""Entries that one submitter may bring in the long run, where the registry does not say, and ..."""

ENTRIES_BURST: Final = 300
"""... at once: an organisation that registers its agents."""

SUBMITTERS: Final = 65_536
"""Submitters whose rate is remembered: about 10 MiB."""

CHANGES_TOLD: Final = 65_536
"""Changes of a registry's feed that an agent remembers, some 700 bytes each. Where more are told within `STATUS_AGE`,
statuses from before the forgotten ones are not believed. (A million IDs that change once a year: 20,000 in that time.)"""

CHANGES_COMPARED: Final = 4_096
"""Changes that a monitor has heard of entries to come, and entries whose change it may still hear: the newest ones."""

CHANGES_BUFFER: Final = 1_024
"""Changes that wait for one subscriber of the feed; a slower one is disconnected, and asks for what it missed."""

STATUS: Final = 8 * KIB
"""One status: about 600 bytes, its proof of 3 KiB in the largest log, and the signatures of some witnesses."""

STATUS_LIFETIME: Final = 3600.0
"""Seconds for which a status is to be believed where nobody says another `max_age`: how long a revocation may go unheard of
while the registry cannot be reached. (OCSP responses: days.)"""

STATUS_REFRESH: Final = 300.0
"""Seconds between two statuses of an agent that keeps up with a registry: two thousand agents ask for seven a second. To ask
of peers for a `max_age` of less than twice as long is to refuse healthy ones."""

ROTATION_GRACE: Final = 10.0
"""Seconds, from the log time of a rotation, in which a status from before it is still believed of those below: what was
issued before goes on, and they show a fresh one as soon as they hear of it. It is also how much longer a thief's agent may
talk that such a rotation voids; a revocation ends it at once."""

STATUS_AGE: Final = 7 * 24 * 3600.0
"""Seconds that a status may be old at most, whatever is asked for: what the feed has told is remembered as long."""

STATUSES: Final = 65_536
"""IDs whose newest status a process remembers: about 20 MiB."""

STATUSES_VERIFIED: Final = 4_096
"""Statuses in bytes whose signature and proof were verified in this process: about 20 MiB."""

EVIDENCE_PIECES: Final = 16
"""Pieces of evidence against its registry that an agent keeps in one run: who lies once can do so for ever."""

CRL: Final = 256 * KIB
"""An issuer's revocation list: some 6,000 certificates that have not run out by themselves."""

CRL_LIFETIME: Final = 7 * 24 * 3600.0
"""Seconds that a revocation list lives when its issuer has not chosen, and ..."""

CRL_LIFETIME_MOST: Final = 31 * 24 * 3600.0
"""... longest choice: who checks lists believes one for as long, whatever happens meanwhile."""

# --- a registry's public side --------------------------------------------------------------------------------

HTTP_CONNECTIONS: Final = 1_024
"""Connections at once; one more waits in the accept queue."""

HTTP_HEAD: Final = 8 * KIB
"""Bytes of one request, which has no body. (nginx: 8 KiB a line.)"""

HTTP_TARGET: Final = 512
"""Bytes of its path, and of its query: the longest of ours has 90."""

HTTP_REQUEST: Final = 10.0
"""Seconds in which a connection must bring a whole request, from its opening or from the answer before. (nginx: 60.)"""

HTTP_ANSWER: Final = 30.0
"""Seconds in which an answer must have been made and taken: 600 KiB/s for the largest."""

HTTP_REQUESTS: Final = 1_000
"""Requests on one connection. (nginx: 1,000.)"""

HTTP_LARGE: Final = 64
"""Entry bundles that are on their way at once, of up to 16 MiB each; ordinary ones have a quarter of one."""

HTTP_READERS: Final = 4
"""Threads that make answers, each with a connection to the database and 8 MiB of its pages."""

FETCH: Final = 60.0
"""Seconds for one answer of who serves a log, however slowly its body drips."""

FETCH_TRIES: Final = 3
"""... and how often one is asked for when the connection breaks: an audit asks thousands of times."""

FETCH_SILENCE: Final = 10.0
"""Seconds in which something of it has to come, before it is asked for once more."""

LOG_VIEW: Final = 512 * KIB
"""Bytes of a record or an entry as JSON. In base64 its certificates, those of 32 rotations included, take less than 80 KiB,
an entry 88 and again what is in it, and a proof is less than the rest."""

LOG_VIEW_NODES: Final = 4_096
"""... and commas and brackets in it: ours have about 400, LOG_PAGE places included. To say what is wrong with each of
170,000 elements took 500 MB."""

# --- load tests ----------------------------------------------------------------------------------------------

BENCH_SECONDS: Final = 24 * 3600.0
"""Longest run of a load test: a certificate that it issues to its callers lives a little longer."""

BENCH_SLOTS: Final = 16_384
"""Operations out at once: as many as LINKS, since each may be a link."""

BENCH_RATE: Final = 1_000_000.0
"""Operations a second that are asked for: more than all workers can begin."""

BENCH_WORKERS: Final = 64
"""Processes: each is an interpreter of some 60 MB."""

BENCH_IDENTITIES: Final = 10_000
"""Callers: each takes a millisecond or two of processor time and, in a worker, 66 KiB for its two TLS contexts."""

# --- what people see ---------------------------------------------------------------------------------------

DISPLAY: Final = 200
"""Characters of a peer's string that reach a terminal, a log or an error."""

DETAIL: Final = 800
"""Characters of our own full reason for a refusal: several models' opinions, each with an id of up to 141."""

BODY_ERRORS: Final = 8
"""Errors told about one wrong body: 200,000 bad items made a 43 MB text."""
