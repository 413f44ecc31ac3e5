"""Start, inspect, wound and stop a three-node development cluster.

As a program it starts a cluster, runs one command with the addresses in its environment, and stops the
cluster again:

    python cluster.py -- pytest test_produce.py

The command sees GANTRY_NAMESRV (all name servers, separated by ';'), GANTRY_CLUSTER (the JSON line that
`gantry dev --json` printed), and GANTRY_LOSSY, a name server that leads over a way on which the first answer to each
send becomes an error.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import lossy

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 40
PORTS_OF_A_NODE = 100


def eventually(condition, deadline_s, what, pause_s=0.05):
    """Return the first truthy value of `condition()`, or fail after `deadline_s` naming `what` was missing."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            described = what() if callable(what) else what
            raise AssertionError(f"after {deadline_s} s still missing: {described}")
        time.sleep(pause_s)


def binary():
    """Path of the broker under test."""
    return pathlib.Path(os.environ.get("GANTRY_BIN", REPOSITORY / "target" / "debug" / "gantry")).resolve()


def claim_ports(nodes):
    """First port of a range that nothing listens on, and sockets that keep others who search from it.

    Whoever holds the last port of a node's hundred, which no node uses, has them all; `gantry demo` and the tests of
    the workspace keep to that too.
    """
    asked = os.environ.get("GANTRY_BASE_PORT")
    if asked:
        return int(asked), []
    size = nodes * PORTS_OF_A_NODE
    for base in range(20000, 30000 - size, PORTS_OF_A_NODE):
        with contextlib.ExitStack() as held:
            try:
                claims = [_listen(held, base + end - 1) for end in range(PORTS_OF_A_NODE, size + 1, PORTS_OF_A_NODE)]
                for port in range(base, base + size):
                    if (port + 1) % PORTS_OF_A_NODE:
                        _listen(held, port).close()
            except OSError:
                continue
            held.pop_all()
            return base, claims
    raise RuntimeError("no free range of ports between 20000 and 30000")


def _listen(held, port):
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


class Cluster:
    """One `gantry dev` process, its nodes, and the nodes that were restarted one by one since."""

    def __init__(self, data, nodes=3):
        self.data = pathlib.Path(data)
        self.node_count = nodes
        self.nodes = {}
        self.json_line = ""
        self._dev = None
        self._restarted = {}
        self._claims = []

    def start(self):
        """Start all nodes and wait until the command reports them ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        base_port, self._claims = claim_ports(self.node_count)
        command = [str(binary()), "dev", "--json", "--data", str(self.data / "nodes")]
        command += ["--base-port", str(base_port), "--nodes", str(self.node_count)]
        with open(self.data / "dev.log", "ab") as log:
            self._dev = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        lines = queue.Queue()
        threading.Thread(target=self._drain, args=(self._dev.stdout, lines), daemon=True).start()
        try:
            self.json_line = self._ready_line(lines)
            self.nodes = {node["id"]: node for node in json.loads(self.json_line)["nodes"]}
        except BaseException:
            self.stop()
            raise
        return self

    def _ready_line(self, lines):
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                assert self._dev.poll() is None, f"gantry dev ended with {self._dev.poll()}:\n{self.log_tail()}"
                continue
            if line.startswith("{"):
                return line
        raise AssertionError(f"gantry dev was not ready after {START_DEADLINE_S} s:\n{self.log_tail()}")

    @staticmethod
    def _drain(pipe, lines):
        for line in pipe:
            lines.put(line.strip())

    def log_tail(self, characters=4000):
        """The end of what the cluster wrote to its standard error."""
        return (self.data / "dev.log").read_text(errors="replace")[-characters:]

    @property
    def namesrv(self):
        """Name server list as clients take it."""
        return ";".join(node["namesrv"] for node in self.nodes.values())

    @property
    def groups(self):
        """Names of all broker groups."""
        return sorted({name for node in self.nodes.values() for name in node["groups"]})

    def addresses(self, group, without=()):
        """Each node's own address for `group`, leaving out the nodes in `without`."""
        return [n["groups"][group] for i, n in self.nodes.items() if i not in without and group in n["groups"]]

    def status(self, node_id):
        """What a node says about its groups, or None if it does not answer."""
        return self._http(node_id, "/api/v1/status", lambda text: json.loads(text))

    def _http(self, node_id, path, read):
        url = f"http://{self.nodes[node_id]['http']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return read(answer.read())
        except (OSError, urllib.error.URLError, ValueError):
            return None

    def leader(self, group):
        """Id of the node that leads `group`: the one that says so itself, in the newest term; else None."""
        claims = []
        for node_id in self.nodes:
            for entry in (self.status(node_id) or {"groups": []})["groups"]:
                if entry["name"] == group and entry["role"] == "leader":
                    claims.append((entry["term"], node_id))
        return max(claims)[1] if claims else None

    def settled(self):
        """Whether every node answers, knows a leader of each of its groups and has applied what any node had committed
        a moment before: under load, what is committed meanwhile is still on its way."""
        before, now = self._replicas(), self._replicas()
        if before is None or now is None:
            return False
        committed = {}
        for entry in before:
            committed[entry["name"]] = max(committed.get(entry["name"], 0), entry["committed"] or 0)
        return all((entry["applied"] or 0) >= committed[entry["name"]] for entry in now)

    def _replicas(self):
        """What every node says of each of its groups; None if one does not answer or knows no leader."""
        replicas = []
        for node_id, node in self.nodes.items():
            status = self.status(node_id)
            if status is None or len(status["groups"]) < len(node["groups"]):
                return None
            replicas.extend(status["groups"])
        led = all(entry["leader"] and entry["role"] in ("leader", "follower") for entry in replicas)
        return replicas if led else None

    def kill(self, node_id):
        """kill -9 one node; returns the wall clock time in seconds right before the signal."""
        pid = self.nodes[node_id]["pid"]
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: _gone(pid), 10, f"the end of process {pid}", pause_s=0.005)
        started = self._restarted.pop(node_id, None)
        if started is not None:
            started.wait()
        return at

    def restart(self, node_id):
        """Start a killed node again from the configuration that the cluster wrote for it."""
        config = self.data / "nodes" / f"node-{node_id}.toml"
        with open(self.data / f"node-{node_id}.log", "ab") as log:
            process = subprocess.Popen(
                [str(binary()), "server", "--config", str(config)], stdout=log, stderr=log
            )
        self._restarted[node_id] = process
        self.nodes[node_id]["pid"] = process.pid

    def stop(self):
        """SIGTERM to everything that is still up, and wait for it."""
        processes = [*self._restarted.values(), *([self._dev] if self._dev else [])]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"process {process.pid} ignored SIGTERM for {STOP_DEADLINE_S} s", file=sys.stderr)
        for claim in self._claims:
            claim.close()
        self._restarted.clear()
        self._dev = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def _gone(pid):
    """Whether a process has ended with all of its threads: until then its ports may still take connections."""
    process = pathlib.Path(f"/proc/{pid}")
    try:
        stat = (process / "stat").read_text()
        threads = len(list((process / "task").iterdir()))
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z" and threads <= 1


def client_home(directory):
    """Point HOME, where the clients keep logs and broadcast offsets, at a directory of our own.

    Cargo and rustup keep their real homes, so that the Rust programs can still be built.
    """
    directory = pathlib.Path(directory).resolve()
    for variable, default in (("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")):
        os.environ.setdefault(variable, str(pathlib.Path.home() / default))
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(directory)


def main():
    """Run one command against a fresh cluster."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    with tempfile.TemporaryDirectory(prefix="gantry-clients-") as data, Cluster(data, options.nodes) as cluster:
        client_home(pathlib.Path(data) / "home")
        environment = dict(os.environ, GANTRY_NAMESRV=cluster.namesrv, GANTRY_CLUSTER=cluster.json_line)
        with lossy.Lossy(cluster.nodes[1]["namesrv"], lossy.SYSTEM_ERROR) as way:
            code = subprocess.run(command, env=environment | {"GANTRY_LOSSY": way.namesrv}).returncode
        if code != 0:
            print(f"the cluster's log ends with:\n{cluster.log_tail()}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
