"""The few broker requests that the stock clients cannot make: raw frames, JSON headers, one at a time."""

import itertools
import json
import socket
import struct
import time
from typing import NamedTuple

SEND_MESSAGE_V2 = 310
QUERY_CONSUMER_OFFSET = 14
GET_MAX_OFFSET = 30
CREATE_TOPIC = 17
GET_CONSUMER_LIST = 38
GET_ROUTE = 105
SUCCESS = 0
NOT_FOUND = 22

_numbers = itertools.count(1)


class Answer(NamedTuple):
    """A response: code, text, header fields, body."""

    code: int
    remark: str
    fields: dict
    body: bytes


class Connection:
    """One connection to a broker or name server address `host:port`."""

    def __init__(self, address, timeout_s=5.0):
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def call(self, code, fields, body=b""):
        """Send one request and wait for its answer; requests that the server makes meanwhile are skipped."""
        number = next(_numbers)
        header = {"code": code, "language": "PYTHON", "version": 317, "opaque": number, "flag": 0}
        header["extFields"] = {name: str(value) for name, value in fields.items()}
        encoded = json.dumps(header).encode()
        self._socket.sendall(struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body)
        while True:
            answer = self._frame()
            if answer["opaque"] == number and answer["flag"] & 1:
                return Answer(
                    answer["code"], answer.get("remark") or "", answer.get("extFields") or {}, answer["body"]
                )

    def _frame(self):
        (length,) = struct.unpack(">I", self._read(4))
        frame = self._read(length)
        (header_length,) = struct.unpack(">I", frame[:4])
        assert header_length >> 24 == 0, "a JSON request was answered in another encoding"
        header = json.loads(frame[4 : 4 + header_length])
        header["body"] = frame[4 + header_length :]
        return header

    def _read(self, length):
        pieces = bytearray()
        while len(pieces) < length:
            piece = self._socket.recv(length - len(pieces))
            if not piece:
                raise ConnectionError("the connection was closed in the middle of an answer")
            pieces += piece
        return bytes(pieces)


def call(address, code, fields, body=b"", timeout_s=5.0):
    """One request on a connection of its own."""
    with Connection(address, timeout_s) as connection:
        return connection.call(code, fields, body)


def create_topic(address, topic, queues, attributes=""):
    """Create `topic` in the group whose address this is; attributes are in the form `+name=value`."""
    fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": queues}
    fields |= {"perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}
    fields |= {"attributes": attributes} if attributes else {}
    answer = call(address, CREATE_TOPIC, fields)
    assert answer.code == SUCCESS, f"creating {topic} at {address}: {answer.code} {answer.remark}"


def route(address, topic):
    """The broker names that hold `topic` according to a name server, or None if it does not know the topic."""
    answer = call(address, GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    if answer.code != SUCCESS:
        return None
    return {entry["brokerName"]: entry["writeQueueNums"] for entry in json.loads(answer.body)["queueDatas"]}


def committed_offset(connection, group, topic, queue_id):
    """The offset stored for a consumer group, or None."""
    fields = {"consumerGroup": group, "topic": topic, "queueId": queue_id, "setZeroIfNotFound": "false"}
    answer = connection.call(QUERY_CONSUMER_OFFSET, fields)
    if answer.code == NOT_FOUND:
        return None
    assert answer.code == SUCCESS, f"offset of {group} in {topic}:{queue_id}: {answer.code} {answer.remark}"
    return int(answer.fields["offset"])


def max_offset(connection, topic, queue_id):
    """The next offset that will be written in a queue."""
    answer = connection.call(GET_MAX_OFFSET, {"topic": topic, "queueId": queue_id})
    assert answer.code == SUCCESS, f"end of {topic}:{queue_id}: {answer.code} {answer.remark}"
    return int(answer.fields["offset"])


def consumers(address, group):
    """Client ids of a consumer group; empty while it has none."""
    answer = call(address, GET_CONSUMER_LIST, {"consumerGroup": group})
    return json.loads(answer.body)["consumerIdList"] if answer.code == SUCCESS else []


def send(connection, topic, queue_id, body):
    """One synchronous send to a given queue."""
    fields = {"a": "probe", "b": topic, "c": "TBW102", "d": 4, "e": queue_id, "f": 0, "h": 0, "i": "", "j": 0}
    fields |= {"g": int(time.time() * 1000), "k": "false", "m": "false"}
    return connection.call(SEND_MESSAGE_V2, fields, body)
