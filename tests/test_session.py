"""The handshake: who holds the key gets in, nobody else does, whatever they send or repeat."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec import session
from sleighexec.errors import AuthenticationError, ConnectError, ProtocolError, SleighError
from sleighexec.session import CLIENT, MONITOR, VERSION, WORKER, Handshake, State, new_key, role_key

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
BINDING = b"unix"
ROLES = [CLIENT, WORKER, MONITOR]
HELLO, AUTH, FINI = 40, 88, 40  # bytes


def server(key=KEY, binding=BINDING):
    return Handshake(key, binding)


def client(key=KEY, binding=BINDING, role=CLIENT):
    return Handshake(key, binding, role=role)


def introduce(one, other):
    """Carry bytes between a server and a client until neither has anything to say."""
    to_client = one.start()
    while to_client:
        to_server = other.feed(to_client)
        to_client = one.feed(to_server) if to_server else b""


def refused(one, other):
    """The error of the server, and what the client makes of its farewell."""
    auth = other.feed(one.start())
    with pytest.raises(AuthenticationError) as server_says:
        one.feed(auth)
    with pytest.raises(AuthenticationError) as client_says:
        other.feed(server_says.value.farewell)
    assert one.state is State.EXPECT_AUTH
    assert other.state is State.EXPECT_FINI
    assert one.role is None
    return server_says.value, client_says.value


# ------------------------------------------------------------------ those who may


@pytest.mark.parametrize("role", ROLES)
def test_who_holds_the_key_gets_in_with_his_role(role):
    one, other = server(), client(role=role)
    introduce(one, other)
    assert one.state is other.state is State.READY
    assert one.role == other.role == role
    assert one.rest == other.rest == b""


def test_the_messages_have_fixed_sizes():
    one, other = server(), client()
    assert other.start() == b""
    hello = one.start()
    auth = other.feed(hello)
    fini = one.feed(auth)
    assert other.feed(fini) == b""
    assert (len(hello), len(auth), len(fini)) == (HELLO, AUTH, FINI)


def test_the_handshake_may_come_byte_by_byte():
    one, other = server(), client()
    auth = b"".join(other.feed(bytes([byte])) for byte in one.start())
    fini = b"".join(one.feed(bytes([byte])) for byte in auth)
    assert b"".join(other.feed(bytes([byte])) for byte in fini) == b""
    assert one.state is other.state is State.READY


@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.binary(max_size=50))
def test_any_split_of_the_handshake_gives_the_same_end(sizes, behind):
    one, other = server(), client()
    auth = other.feed(one.start()) + behind
    fini, position, turn = b"", 0, 0
    while one.state is not State.READY:
        piece = auth[position : position + sizes[turn % len(sizes)]]
        fini += one.feed(piece)
        position, turn = position + len(piece), turn + 1
    assert one.rest + auth[position:] == behind
    other.feed(fini)
    assert other.state is State.READY


def test_bytes_behind_the_handshake_are_kept():
    one, other = server(), client()
    fini = one.feed(other.feed(one.start()) + b"first frame of the client")
    other.feed(fini + b"first frame of the server")
    assert one.rest == b"first frame of the client"
    assert other.rest == b"first frame of the server"


def test_nothing_is_said_before_a_message_is_complete():
    one, other = server(), client()
    assert other.feed(one.start()[:-1]) == b""
    assert other.state is State.EXPECT_HELLO


def test_feeding_nothing_changes_nothing():
    one, other = server(), client()
    assert one.feed(b"") == other.feed(b"") == b""
    introduce(one, other)
    assert one.state is State.READY


def test_two_handshakes_say_different_things():
    first, second = server(), server()
    hello, other_hello = first.start(), second.start()
    assert hello != other_hello
    assert client().feed(hello) != client().feed(hello)


def test_every_run_has_a_key_of_its_own():
    assert len({new_key() for _ in range(100)}) == 100
    assert len(new_key()) == 32


def test_the_key_is_never_sent():
    key = os.urandom(32)
    one, other = server(key), client(key)
    hello = one.start()
    auth = other.feed(hello)
    fini = one.feed(auth)
    for secret in (key, *(role_key(key, role) for role in ROLES)):
        assert secret not in hello + auth + fini


# ------------------------------------------------------------------ those who may not


def test_a_wrong_key_is_refused():
    server_says, client_says = refused(server(), client(OTHER_KEY))
    assert "key" in str(server_says)
    assert "refused this key" in str(client_says)


def test_a_refusal_is_a_failure_to_connect_and_says_goodbye():
    server_says, _ = refused(server(), client(OTHER_KEY))
    assert isinstance(server_says, ConnectError)
    assert len(server_says.farewell) == FINI


def test_a_farewell_proves_nothing():
    server_says, _ = refused(server(), client(OTHER_KEY))
    assert server_says.farewell[8:] == bytes(32)


@pytest.mark.parametrize("claimed", ROLES)
@pytest.mark.parametrize("held", ROLES)
def test_the_key_of_one_role_opens_no_other(monkeypatch, held, claimed):
    one, other = server(), client(role=claimed)
    real = session.role_key
    with monkeypatch.context() as patch:  # the client has been given this role's key only
        patch.setattr(session, "role_key", lambda key, role: real(key, held))
        auth = other.feed(one.start())
    if held == claimed:
        assert one.feed(auth)
    else:
        with pytest.raises(AuthenticationError):
            one.feed(auth)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_cannot_be_changed_on_the_way(role):
    one, other = server(), client(role=role)
    auth = bytearray(other.feed(one.start()))
    auth[5] = ROLES[(ROLES.index(role) + 1) % 3]
    with pytest.raises(AuthenticationError):
        one.feed(bytes(auth))
    assert one.role is None


@pytest.mark.parametrize("role", [0, 4, 255])
def test_an_unknown_role_is_refused(role):
    one, other = server(), client()
    auth = bytearray(other.feed(one.start()))
    auth[5] = role
    with pytest.raises(AuthenticationError):
        one.feed(bytes(auth))


def test_an_unknown_role_is_refused_although_its_mac_is_right():
    """Signed with the client's key, by somebody who holds it, but with role 9 in it."""
    one, other = server(), client()
    hello = one.start()
    auth = bytearray(other.feed(hello)[:-32])
    auth[5] = 9
    mac = session._mac(role_key(KEY, CLIENT), b"client", BINDING, hello, bytes(auth))
    with pytest.raises(AuthenticationError):
        one.feed(bytes(auth) + mac)


@pytest.mark.parametrize("bindings", [(b"unix", b"ssh"), (b"a" * 32, b"b" * 32), (b"", b"unix")])
def test_another_channel_is_refused(bindings):
    """Somebody in between relays every byte, over two channels."""
    refused(server(binding=bindings[0]), client(binding=bindings[1]))


def test_a_recorded_answer_is_refused_by_the_next_handshake():
    one, other = server(), client()
    auth = other.feed(one.start())
    one.feed(auth)
    again = server()
    again.start()
    with pytest.raises(AuthenticationError):
        again.feed(auth)


def test_a_recorded_verdict_is_refused_by_the_next_client():
    one, other = server(), client()
    hello = one.start()
    fini = one.feed(other.feed(hello))
    victim = client()
    victim.feed(hello)
    with pytest.raises(AuthenticationError, match="does not hold the key"):
        victim.feed(fini)


def test_a_client_gets_his_own_proof_back_and_does_not_believe_it():
    other = client()
    auth = other.feed(server().start())
    with pytest.raises(AuthenticationError, match="does not hold the key"):
        other.feed(session._FINI.pack(session.MAGIC, session.OK, auth[-32:]))


def test_a_server_gets_its_own_hello_back_and_does_not_believe_it():
    one = server()
    hello = one.start()
    with pytest.raises(SleighError):
        one.feed(hello + bytes(AUTH - HELLO))


def test_a_hello_made_from_another_servers_is_refused():
    """A relay shows the client one server's hello and the server the client's answer to it."""
    shown, asked = server(), server()
    asked.start()
    auth = client().feed(shown.start())
    with pytest.raises(AuthenticationError):
        asked.feed(auth)


def test_a_server_without_the_key_is_not_believed():
    one, other = server(OTHER_KEY), client()
    auth = other.feed(one.start())
    key = role_key(OTHER_KEY, CLIENT)
    forged = session._mac(key, b"server", BINDING, one._hello, auth[:-32])
    with pytest.raises(AuthenticationError, match="does not hold the key"):
        other.feed(session._FINI.pack(session.MAGIC, session.OK, forged))
    assert other.state is not State.READY


# Where no byte may change: all of AUTH; of HELLO all behind its versions; of FINI all but padding.
POSITIONS = [(0, n) for n in range(HELLO)] + [(1, n) for n in range(AUTH)]
POSITIONS += [(2, n) for n in range(FINI) if n not in (5, 6, 7)]


@pytest.mark.parametrize("which", range(3))
def test_no_byte_of_the_handshake_can_be_changed(which):
    for message, position in POSITIONS:
        if message != which:
            continue
        one, other = server(), client()

        def spoil(number, data, message=message, position=position):
            if number != message:
                return data
            return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]

        with pytest.raises((ConnectError, ProtocolError)):  # noqa: PT012 - any of the three
            fini = one.feed(spoil(1, other.feed(spoil(0, one.start()))))
            other.feed(spoil(2, fini))
        assert not (one.state is other.state is State.READY), (message, position)


# ------------------------------------------------------------------ those who speak otherwise


def test_a_server_of_another_version_is_named():
    hello = session._HELLO.pack(session.MAGIC, VERSION + 1, VERSION + 3, 0, bytes(32))
    with pytest.raises(ProtocolError, match=f"versions {VERSION + 1} to {VERSION + 3}.* {VERSION}"):
        client().feed(hello)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (VERSION + 1, VERSION + 1), (255, 255), (9, 0)])
def test_a_client_answers_no_server_of_another_version(low, high):
    hello = session._HELLO.pack(session.MAGIC, low, high, 0, bytes(32))
    other = client()
    with pytest.raises(ProtocolError):
        other.feed(hello)
    assert other.state is State.EXPECT_HELLO


def test_a_server_that_speaks_this_version_too_is_answered():
    hello = session._HELLO.pack(session.MAGIC, VERSION, VERSION + 5, 0, bytes(32))
    assert len(client().feed(hello)) == AUTH


def test_a_client_of_another_version_is_refused_although_he_holds_the_key():
    one, other = server(), client()
    hello = one.start()
    auth = bytearray(other.feed(hello)[:-32])
    auth[4] = VERSION + 1
    mac = session._mac(role_key(KEY, CLIENT), b"client", BINDING, hello, bytes(auth))
    with pytest.raises(SleighError):
        one.feed(bytes(auth) + mac)
    assert one.state is not State.READY


GARBAGE = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",
    b"SSH-2.0-OpenSSH",
    b"\x80\x05\x95",
    b"slx2" + bytes(84),
    b"SLX1" + bytes(84),
    b"\x00",
    b"sx",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
@pytest.mark.parametrize("make", [server, client])
def test_garbage_is_refused_by_its_first_wrong_byte(make, garbage):
    side = make()
    side.start()
    with pytest.raises(ProtocolError, match="not sleighexec"):
        side.feed(garbage)


def test_garbage_instead_of_the_verdict_is_refused():
    other = client()
    other.feed(server().start())
    with pytest.raises(ProtocolError):
        other.feed(b"HTTP/1.1 400 Bad Request")


@given(st.binary(max_size=200), st.sampled_from([b"", session.MAGIC]), st.booleans())
def test_a_stranger_never_gets_in(noise, magic, to_server):
    side = server() if to_server else client()
    side.start()
    # What comes may happen to say that the server is full.
    with contextlib.suppress(ProtocolError, AuthenticationError, ConnectError):
        side.feed(magic + noise)
    assert side.state is not State.READY


@pytest.mark.parametrize("make", [server, client])
def test_a_stranger_makes_us_keep_no_more_than_one_message(make):
    side = make()
    side.start()
    kept = 0
    for _ in range(50):
        try:
            side.feed(session.MAGIC if kept == 0 else b"x")
        except SleighError:
            break
        kept = len(side._data)
    assert kept < AUTH
