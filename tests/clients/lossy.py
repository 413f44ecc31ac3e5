"""A way to the cluster on which answers to sends are lost.

A client that asks `Lossy` for routes is given its addresses for every broker, so that all it sends goes through
here. Everything is passed on; but of the first send of each body the answer is lost: swallowed, or replaced by
an error. The message is stored by then, the client does not know, and tries again as it does by itself.
"""

import json
import re
import socket
import struct
import threading
from collections import namedtuple

import remoting

# The address of the broker that got a send, its unique key (None if it is a batch), its body.
Sent = namedtuple("Sent", "broker key body")

SENDS = (10, 310, 320)
SWALLOWED = None
SYSTEM_ERROR = 1

_ADDRESS = re.compile(rb"\d+\.\d+\.\d+\.\d+:\d+")


class Lossy:
    """Listens for name servers and brokers, and remembers every send that it passes on.

    `answer` is what the client gets instead of the answer: a response code, or `SWALLOWED`.
    """

    def __init__(self, namesrv, answer=SWALLOWED):
        self._answer = answer
        self._lock = threading.Lock()
        self._ways = {}
        self._sent = []
        self.namesrv = self._way_to(namesrv)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self._lock:
            for listener, _ in self._ways.values():
                # An accept that waits does not notice a close.
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()

    @property
    def swallows(self):
        """Whether an answer that is lost never comes."""
        return self._answer is SWALLOWED

    @property
    def sent(self):
        """Every send so far."""
        with self._lock:
            return list(self._sent)

    def _way_to(self, address):
        """The address here that leads to `address`."""
        with self._lock:
            if address not in self._ways:
                listener = socket.create_server(("127.0.0.1", 0))
                self._ways[address] = (listener, f"127.0.0.1:{listener.getsockname()[1]}")
                threading.Thread(target=self._accept, args=(listener, address), daemon=True).start()
            return self._ways[address][1]

    def _accept(self, listener, address):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            host, _, port = address.rpartition(":")
            broker = socket.create_connection((host, int(port)))
            link = _Link(self, address)
            for source, target, change in ((client, broker, link.request), (broker, client, link.answer)):
                threading.Thread(target=_pump, args=(source, target, change), daemon=True).start()

    def _is_first(self, sent):
        """Notes a send; whether its body comes for the first time."""
        with self._lock:
            is_first = all(sent.body != other.body for other in self._sent)
            self._sent.append(sent)
            return is_first


class _Link:
    """One connection of a client, and what it waits for."""

    def __init__(self, lossy, address):
        self._lossy = lossy
        self._address = address
        self._routes = set()
        self._lost = set()

    def request(self, header, body):
        """A request on its way; it always goes on."""
        number, fields = header["opaque"], header.get("extFields") or {}
        if header["code"] == remoting.GET_ROUTE:
            self._routes.add(number)
        elif header["code"] in SENDS and not header["flag"] & 1:
            properties = fields.get("properties") or fields.get("i") or ""
            if self._lossy._is_first(Sent(self._address, unique_key(properties), body)):
                self._lost.add(number)
        return header, body

    def answer(self, header, body):
        """An answer on its way; None if it is lost."""
        number = header["opaque"]
        if header["flag"] & 1 and number in self._routes:
            body = _ADDRESS.sub(lambda found: self._lossy._way_to(found[0].decode()).encode(), body)
        if not header["flag"] & 1 or number not in self._lost:
            return header, body
        if self._lossy.swallows:
            return None
        return header | {"code": self._lossy._answer, "remark": "lost", "extFields": {}}, b""


def unique_key(properties):
    """The unique key among the properties of a send, or None."""
    pairs = (pair.partition("\x01") for pair in properties.split("\x02"))
    return next((value for name, _, value in pairs if name == "UNIQ_KEY"), None)


def _pump(source, target, change):
    """Carries frames until one side closes."""
    with source, target, source.makefile("rb") as frames:
        try:
            while size := frames.read(4):
                frame = frames.read(struct.unpack(">I", size)[0])
                changed = _changed(frame, change)
                if changed is not None:
                    target.sendall(struct.pack(">I", len(changed)) + changed)
        except OSError:
            pass  # The other side is gone, and the client notices.


def _changed(frame, change):
    (length,) = struct.unpack(">I", frame[:4])
    assert length >> 24 == 0, "headers are JSON"
    changed = change(json.loads(frame[4 : 4 + length]), frame[4 + length :])
    if changed is None:
        return None
    header, body = changed
    encoded = json.dumps(header).encode()
    return struct.pack(">I", len(encoded)) + encoded + body
