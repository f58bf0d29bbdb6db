"""Keys of session tickets, and what OpenSSL does with them when several processes share them."""

import os
import ssl

import pytest

from oca.openssl import KEY_BYTES, TicketsNotShared, share_tickets
from oca.store.board import TICKETS_BYTES, new_memory
from oca.tls import TicketKeys, kernel_tls
from tests.doubles.authority import Authority

HOUR = 3600.0


@pytest.fixture
def memory():
    fd = new_memory("tickets", TICKETS_BYTES)
    yield fd
    os.close(fd)


def test_a_worker_sees_the_newest_key_and_the_one_before(memory):
    keeper, worker = TicketKeys(memory), TicketKeys(memory)
    assert worker.look() == ()
    seen = []
    for turn in range(5):
        keeper.rotate(1000 + turn * HOUR, HOUR)
        keys = worker.look()
        assert len(keys) == min(turn + 1, 2)
        assert {len(key) for key in keys} == {KEY_BYTES}
        if seen:
            assert keys[1] == seen[-1]
        assert keys[0] not in seen
        seen.append(keys[0])


def test_a_key_stays_for_its_time_also_for_another_keeper(memory):
    TicketKeys(memory).rotate(1000, HOUR)
    keys = TicketKeys(memory).look()
    TicketKeys(memory).rotate(1000 + HOUR - 1, HOUR)
    assert TicketKeys(memory).look() == keys
    # A clock that was set back must not keep a key for ever.
    TicketKeys(memory).rotate(500, HOUR)
    assert TicketKeys(memory).look()[1] == keys[0]


class Server:
    """A context as a worker has it."""

    def __init__(self, pair, keys):
        self.keys = keys
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair)
        share_tickets(self.context, lambda: self.keys)


def shaken(server, client, session=None):
    """A handshake in memory. The client's session afterwards, and whether it was resumed."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1", session=session)
    other = server.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    other.write(b"hello")
    assert one.read() == b"hello"
    return one.session, one.session_reused


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_ticket_is_honoured_wherever_its_key_is_known(authority, version):
    pair = authority.sign("a", "pair.pem")
    old, new, newest = (os.urandom(KEY_BYTES) for _ in range(3))
    one, other = Server(pair, (old,)), Server(pair, (old,))
    client = authority.trusted()
    client.maximum_version = version
    session, _ = shaken(one, client)
    assert session.has_ticket
    assert shaken(other, client, session)[1]
    # After a rotation the key before is honoured, and a ticket under the new one is given out.
    other.keys = (new, old)
    renewed, is_resumed = shaken(other, client, session)
    assert is_resumed
    other.keys = (newest, new)
    assert shaken(other, client, renewed)[1]
    assert not shaken(other, client, session)[1]


def test_a_ticket_that_was_tampered_with_is_no_ticket(authority):
    """The same name, and other keys behind it: what was encrypted can't be read, and a full handshake follows."""
    pair = authority.sign("a", "pair.pem")
    name = os.urandom(16)
    one, other = (Server(pair, (name + os.urandom(64),)) for _ in range(2))
    client = authority.trusted()
    session, _ = shaken(one, client)
    assert not shaken(other, client, session)[1]


def test_another_library_is_left_alone(monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (4, 0, 0, 0, 0))
    with pytest.raises(TicketsNotShared, match="unknown OpenSSL"):
        share_tickets(context, tuple)


def test_whether_the_kernel_encrypts_is_told_in_words():
    assert kernel_tls()
