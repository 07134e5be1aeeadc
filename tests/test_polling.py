"""Which of many sockets can be read or written."""

from __future__ import annotations

import os
import select
import socket

import pytest

from sleighexec.polling import READ, WRITE, Poller

KINDS = [getattr(select, name) for name in ("epoll", "poll") if hasattr(select, name)]

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_what_can_be_read_or_written_is_found(kind):
    poller, (ours, theirs) = Poller(kind), socket.socketpair()
    with ours, theirs:
        poller.watch(ours.fileno(), READ)
        assert poller.wait(0) == []
        theirs.send(b"!")
        assert poller.wait(None) == [(ours.fileno(), READ)]
        poller.watch(ours.fileno(), READ | WRITE)
        assert poller.wait(60) == [(ours.fileno(), READ | WRITE)]
        poller.watch(ours.fileno(), WRITE)
        assert poller.wait(60) == [(ours.fileno(), WRITE)]
        poller.leave(ours.fileno())
        poller.leave(ours.fileno())  # it is not watched: that is no error
        assert poller.wait(0.001) == []
    poller.close()


def test_the_end_of_a_peer_is_found_whatever_is_watched_for(kind):
    poller, (ours, theirs) = Poller(kind), socket.socketpair()
    with ours:
        for events in (0, READ, WRITE):
            poller.watch(ours.fileno(), events)
        theirs.close()
        [(descriptor, events)] = poller.wait(60)
        assert descriptor == ours.fileno()
        assert events & ~(READ | WRITE), "it is told apart from what can be read"
        poller.leave(ours.fileno())
    poller.close()


def test_a_descriptor_that_somebody_has_closed_can_be_left(kind):
    poller = Poller(kind)
    reading, writing = os.pipe()
    poller.watch(reading, READ)
    os.close(reading)
    poller.leave(reading)
    assert poller.wait(0) == []
    os.close(writing)
    poller.close()


def test_what_is_no_descriptor_is_refused(kind):
    poller = Poller(kind)
    with pytest.raises((OSError, ValueError)):
        poller.watch(-1, READ)
    poller.close()
