#!/usr/bin/env python3
"""What one node does about clients that mean no good, or know no better.

    tests/bench/hostile.py target/release/gantry [--idle 9000] [--active 1000] [--parked 1000] [--topics 10000]

Starts one node under a memory limit of 512 MiB (a cgroup of version 1, where there is one; else only measured) and puts
on it, one after the other and all at the same time: idle connections, connections that send, pulls that wait, a reader
of one byte a second, frames that announce 2 GiB, greetings on the peer port that do not go on, 64 sends of 4 MiB at
once, and topics. After each, an ordinary producer must be answered. At the end everybody goes, and the node's
descriptors must go with them. One line of JSON for each step on standard output. Exit 1 if a judgement fails.
"""
import argparse
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

MEMORY_BYTES = 512 << 20
CGROUP = "/sys/fs/cgroup/memory"
ANSWER_S = 10
failed = []


def frame(code, fields, body=b"", opaque=1, flag=0):
    header = json.dumps({"code": code, "language": "JAVA", "version": 479, "opaque": opaque, "flag": flag,
                         "extFields": fields}).encode()
    return struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body


def send_frame(body, topic="T", opaque=1):
    fields = {"a": "P", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "i": "", "j": "0",
              "k": "false", "m": "false"}
    return frame(310, fields, body, opaque)


def pull_frame(opaque, offset=0, suspend_ms=20000):
    fields = {"consumerGroup": "G", "topic": "T", "queueId": "1", "queueOffset": str(offset), "maxMsgNums": "32",
              "sysFlag": "6", "commitOffset": "0", "suspendTimeoutMillis": str(suspend_ms), "subscription": "*",
              "subVersion": "0"}
    return frame(11, fields, opaque=opaque)


def connect(port, timeout=ANSWER_S):
    connection = socket.create_connection(("127.0.0.1", port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError("the node closed the connection")
        data += piece
    return data


def answer(connection):
    length, = struct.unpack(">I", read_exactly(connection, 4))
    rest = read_exactly(connection, length)
    header, = struct.unpack(">I", rest[:4])
    return json.loads(rest[4:4 + (header & 0xFFFFFF)])


class Node:
    def __init__(self, gantry, directory, connections):
        self.directory, self.first = directory, free_ports()
        self.namesrv, self.http, self.peer, self.port = (self.first + n for n in (0, 1, 3, 4))
        config = os.path.join(directory, "node.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"""
node = 1
data = "{directory}/data"
peers = [{{ node = 1, address = "127.0.0.1:{self.peer}" }}]
groups = [{{ name = "broker-a" }}]
peer = {{ bind = "127.0.0.1:{self.peer}" }}
http = {{ bind = "127.0.0.1:{self.http}" }}
storage = {{ segment_bytes = "64MiB" }}
broker = {{ connections_max = {connections} }}
[[listener]]
name = "local"
bind = "127.0.0.1"
nodes = [{{ node = 1, host = "127.0.0.1", namesrv = {self.namesrv}, groups = [{self.port}] }}]
""")
        self.limited = limit_memory()
        with open(os.path.join(directory, "log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([gantry, "server", "--config", config], stdout=log, stderr=log,
                                            preexec_fn=enter_limit if self.limited else None)
        self.wait_until_ready()

    def wait_until_ready(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit("the node ended: " + open(os.path.join(self.directory, "log"), encoding="utf-8").read()[-500:])
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        sys.exit("the node is not ready after 30 s")

    def resident_mib(self, field="VmRSS"):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) // 1024 for line in status if line.startswith(field))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            failed.append("the node does not stop")


def free_ports():
    for first in range(26000, 60000, 10):
        sockets = []
        try:
            for port in range(first, first + 5):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    sys.exit("there are no free ports")


def limit_memory():
    group = os.path.join(CGROUP, "gantry-hostile")
    try:
        os.makedirs(group, exist_ok=True)
        with open(os.path.join(group, "memory.limit_in_bytes"), "w", encoding="ascii") as limit:
            limit.write(str(MEMORY_BYTES))
        return True
    except OSError:
        return False


def enter_limit():
    with open(os.path.join(CGROUP, "gantry-hostile", "cgroup.procs"), "w", encoding="ascii") as processes:
        processes.write(str(os.getpid()))


def judge(step, condition, text):
    if not condition:
        failed.append(f"{step}: {text}")


def check(node, step, count=50):
    """An ordinary producer is served; says how long it takes, and what the node has."""
    times, refused = [], None
    try:
        producer = connect(node.port)
        for number in range(count):
            began = time.monotonic()
            producer.sendall(send_frame(b"x" * 1024, opaque=number))
            got = answer(producer)
            times.append((time.monotonic() - began) * 1000)
            if got["code"] != 0:
                refused = got.get("remark")
        producer.close()
    except (OSError, EOFError) as error:
        refused = str(error)
    times.sort()
    mib = node.resident_mib() if node.process.poll() is None else None
    judge(step, refused is None, f"an ordinary producer is refused: {refused}")
    judge(step, mib is not None and mib < MEMORY_BYTES >> 20, f"{mib} MiB resident")
    line = {"case": "hostile", "step": step, "max_ms": round(times[-1], 1) if times else None, "refused": refused,
            "rss_mib": mib, "fds": node.descriptors() if mib else None, "limited": node.limited}
    print(json.dumps(line), flush=True)
    return mib is not None


def send_all(connections, each):
    """Every connection sends once; gives the answers by code, and those that came within 10 s."""
    codes, watch = {}, selectors.DefaultSelector()
    for number, connection in enumerate(connections):
        connection.sendall(each(number))
        watch.register(connection, selectors.EVENT_READ)
    end, left = time.monotonic() + 30, len(connections)
    while left and time.monotonic() < end:
        for key, _ in watch.select(1):
            got = answer(key.fileobj)
            codes[got["code"]] = codes.get(got["code"], 0) + 1
            judge("send", got["code"] == 0 or got.get("remark"), "a refusal without a reason")
            watch.unregister(key.fileobj)
            left -= 1
    return codes, left


def slow_and_large(node, kept):
    """A reader of a byte a second of megabytes; 64 x 4 MiB at once; a frame of 2 GiB; greetings that stop."""
    slow = connect(node.port)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(64):
        slow.sendall(frame(11, {"consumerGroup": "G", "topic": "T", "queueId": "0", "queueOffset": "0",
                                "maxMsgNums": "1024", "sysFlag": "4", "commitOffset": "0", "subscription": "*",
                                "suspendTimeoutMillis": "0", "maxMsgBytes": "4194304"}, opaque=number))
    slow.recv(1)
    kept.append(slow)
    check(node, "a consumer that reads one byte a second")

    large = [connect(node.port, 60) for _ in range(64)]
    with_body = send_frame(b"x" * (4 << 20))
    began = time.monotonic()
    for connection in large:
        connection.setblocking(False)
    waiting = {connection: memoryview(with_body) for connection in large}
    while waiting and time.monotonic() - began < 60:
        for connection in list(waiting):
            try:
                sent = connection.send(waiting[connection])
                waiting[connection] = waiting[connection][sent:]
                if not waiting[connection]:
                    del waiting[connection]
            except BlockingIOError:
                pass
    codes = {}
    for connection in large:
        connection.settimeout(30)
        try:
            code = answer(connection)["code"]
        except (EOFError, OSError) as error:
            code = str(error)
        codes[code] = codes.get(code, 0) + 1
        connection.close()
    print(json.dumps({"case": "hostile", "step": "64 sends of 4 MiB", "codes": codes, "ended": node.process.poll(),
                      "peak_mib": node.resident_mib("VmHWM") if node.process.poll() is None else None,
                      "seconds": round(time.monotonic() - began, 2)}), flush=True)
    judge("64 sends of 4 MiB", set(codes) <= {0, 14}, str(codes))
    check(node, "after 64 sends of 4 MiB")

    for _ in range(100):
        liar = connect(node.port)
        liar.sendall(struct.pack(">II", (2 << 30) - 1, 100))
        judge("frames of 2 GiB", liar.recv(1) == b"", "the connection goes on")
        liar.close()
    for _ in range(200):
        peer = connect(node.peer)
        peer.sendall(b"\x40\x00\x00\x00\x01\x00")
        kept.append(peer)
    check(node, "frames of 2 GiB and greetings that stop")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gantry")
    for name, default in (("idle", 9000), ("active", 1000), ("parked", 1000), ("topics", 10000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    total = args.idle + args.active + args.parked
    with tempfile.TemporaryDirectory() as directory:
        node = Node(args.gantry, directory, total + 500)
        try:
            run(node, args)
        finally:
            node.stop()
    for reason in failed:
        print("FAILED:", reason, file=sys.stderr)
    sys.exit(1 if failed else 0)


def run(node, args):
    check(node, "nothing yet")
    before = node.descriptors()
    kept = [connect(node.port) for _ in range(args.idle)]
    check(node, f"{args.idle} idle connections")
    active = [connect(node.port) for _ in range(args.active)]
    for _ in range(3):
        codes, left = send_all(active, lambda number: send_frame(b"y" * 1024, opaque=number))
        judge("active", left == 0 and set(codes) == {0}, f"{codes}, {left} unanswered")
    kept += active
    check(node, f"{args.active} connections that send")
    for number in range(args.parked):
        parked = connect(node.port)
        parked.sendall(pull_frame(number))
        kept.append(parked)
    check(node, f"{args.parked} pulls that wait")
    slow_and_large(node, kept)
    admin, began = connect(node.port), time.monotonic()
    for number in range(args.topics):
        admin.sendall(frame(17, {"topic": f"many-{number}", "defaultTopic": "TBW102", "readQueueNums": "4",
                                 "writeQueueNums": "4", "perm": "6", "topicFilterType": "SINGLE_TAG"}, opaque=number))
        if number % 64 == 63:
            for _ in range(64):
                judge("topics", answer(admin)["code"] == 0, "a topic is refused")
    for _ in range(args.topics % 64):
        answer(admin)
    print(json.dumps({"case": "hostile", "step": "topics created", "seconds": round(time.monotonic() - began, 1)}))
    check(node, f"{args.topics} topics")
    for connection in kept + [admin]:
        connection.close()
    end = time.monotonic() + 10
    while node.descriptors() > before + 16 and time.monotonic() < end:
        time.sleep(0.1)
    judge("the end", node.descriptors() <= before + 16, f"{node.descriptors()} descriptors, {before} before")
    check(node, "all gone")


if __name__ == "__main__":
    main()
