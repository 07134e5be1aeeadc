"""TLS 1.3 between machines, with a certificate that is known beforehand: no authorities.

A server makes a key and a certificate of its own when it starts. Who is to reach it knows the
SHA-256 of that certificate, from the connection file, and hangs up on any other. The handshake of
session.py, which follows inside, is bound to it too: nobody in between can pass it on.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import select
import socket
import ssl
import tempfile
import threading
import time

from sleighexec.errors import AuthenticationError
from sleighexec.hints import Any

SILENCE = 5  # seconds without a sign from the other machine's kernel after which it is gone
DAYS = 3650  # of a certificate, which nobody goes by: it is new with each server


class Certificate:
    """A key and a self-signed certificate for one server.

    Attributes:
        fingerprint: The SHA-256 of the certificate.
        context: For its sockets.
    """

    def __init__(self) -> None:
        from datetime import datetime, timedelta, timezone

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sleighexec")])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=DAYS))
            .sign(key, hashes.SHA256())
        )
        encoding = serialization.Encoding
        self.fingerprint = hashlib.sha256(certificate.public_bytes(encoding.DER)).digest()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.num_tickets = 0  # nobody comes back with an old session
        pem = key.private_bytes(
            encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # The only way into a context leads through a file; it has mode 0600.
        descriptor, path = tempfile.mkstemp(prefix="sleighexec-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem + certificate.public_bytes(encoding.PEM))
            self.context.load_cert_chain(path)
        finally:
            os.unlink(path)


class TlsSocket:
    """A connected socket with TLS on it, used as the others are, also by two threads at once.

    It never blocks inside of OpenSSL, whose objects are for one thread at a time: who must wait
    waits for the socket, without the lock.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        """It takes the socket over, which does not block from now on; whether we do, see below."""
        self.family = sock.family
        sock.setblocking(False)
        self._lock = threading.Lock()  # guards the following
        self._ssl = context.wrap_socket(
            sock, server_side=server_side, do_handshake_on_connect=False
        )
        self._blocking = False
        self._seconds: float | None = None
        self._poll = select.poll  # made for each wait: two threads may wait

    def setblocking(self, blocking: bool) -> None:
        """Whether the other methods wait, or raise BlockingIOError."""
        self._blocking, self._seconds = blocking, None

    def settimeout(self, seconds: float) -> None:
        """They wait so long, then raise TimeoutError."""
        self._blocking, self._seconds = True, seconds

    def shake_hands(self) -> None:
        """Agree on keys with the other side; BlockingIOError: not yet."""
        self._do(self._ssl.do_handshake)

    def fingerprint(self) -> bytes:
        """The SHA-256 of the certificate that the other side has shown."""
        return hashlib.sha256(self._ssl.getpeercert(binary_form=True) or b"").digest()

    def pending(self) -> int:
        """Bytes that were received and decrypted already: no selector tells of them."""
        with self._lock:
            return self._ssl.pending()

    def recv(self, limit: int) -> bytes:
        data: bytes = self._do(self._ssl.recv, limit)
        return data

    def recv_into(self, buffer: Any) -> int:
        count: int = self._do(self._ssl.recv_into, buffer)
        return count

    def send(self, data: Any) -> int:
        count: int = self._do(self._ssl.send, data)
        return count

    def sendmsg(self, pieces: Any) -> int:
        """Send what goes at once, of the first pieces; who gets less sends the rest again."""
        sent = 0
        for piece in pieces:
            view = memoryview(piece).cast("B")
            while view:
                try:
                    count = self._do(self._ssl.send, view, wait=self._blocking and not sent)
                except BlockingIOError:
                    if sent:
                        return sent
                    raise
                sent += count
                view = view[count:]
        return sent

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view) :]

    def fileno(self) -> int:
        return self._ssl.fileno()

    def shutdown(self, how: int) -> None:
        # Not SSLSocket's own, which goes on in the clear.
        socket.socket.shutdown(self._ssl, how)

    def close(self) -> None:
        self._ssl.close()

    def _do(self, step: Any, *arguments: Any, wait: bool | None = None) -> Any:
        wait = self._blocking if wait is None else wait
        deadline = None if self._seconds is None else time.monotonic() + self._seconds
        while True:
            try:
                with self._lock:
                    return step(*arguments)
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                raise ConnectionResetError("the other side hung up") from None
            except ssl.SSLError as error:
                raise ConnectionResetError(f"no TLS connection: {error.reason}") from error
            except ValueError as error:  # it was closed by another thread
                raise ConnectionResetError(str(error)) from error
            if not wait:
                raise BlockingIOError
            self._wait(events, deadline)

    def _wait(self, events: int, deadline: float | None) -> None:
        poll = self._poll()
        descriptor = self._ssl.fileno()
        if descriptor < 0:
            raise ConnectionResetError("it was closed here")
        poll.register(descriptor, events)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError("timed out")


def reach(sock: socket.socket, fingerprint: bytes, seconds: float) -> TlsSocket:
    """TLS on a socket that was connected to a server whose certificate is known.

    Raises:
        AuthenticationError: It has shown another one. Nothing was sent to it.
        OSError: It does not speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # not by authorities: the fingerprint decides
    found = TlsSocket(sock, context, server_side=False)
    try:
        found.settimeout(seconds)
        found.shake_hands()
        if not hmac.compare_digest(found.fingerprint(), fingerprint):
            raise AuthenticationError(
                "the server has another certificate than its connection file says: it was started "
                "again since, or somebody stands in between; nothing was sent to it"
            )
    except BaseException:
        found.close()
        raise
    return found


def notice_silence(sock: socket.socket) -> None:
    """Have the kernel see that the other machine is gone, which it would take hours for."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", SILENCE - 1))
    for name, value in (*options, ("TCP_USER_TIMEOUT", SILENCE * 1000)):
        with contextlib.suppress(AttributeError, OSError):  # not every system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
