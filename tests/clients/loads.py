"""The stock loads of the failover measurement: the Rust client in a process of its own, the C++ client in threads.

Both collect the same things: `Ack`s, failures and the bodies that their push consumer was given.
"""

import json
import os
import pathlib
import queue
import subprocess
import threading
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent


class Ack(NamedTuple):
    """One acked send. The C++ client tells neither broker nor queue, but its message id."""

    body: str
    begun_s: float
    at_s: float
    broker: str | None
    queue: int | None
    offset: int
    msg_id: str | None


class Records:
    """What a load saw, safe to read while it runs."""

    def __init__(self):
        self._lock = threading.Lock()
        self._acks, self._failures, self._consumed = [], [], set()

    def ack(self, ack):
        """Note an acked send."""
        with self._lock:
            self._acks.append(ack)

    def fail(self, body, begun_s, why):
        """Note a send that the client reported as failed."""
        with self._lock:
            took_ms = round((time.time() - begun_s) * 1000)
            self._failures.append({"body": body, "begun_s": begun_s, "took_ms": took_ms, "why": why})

    def consume(self, body):
        """Note a consumed message."""
        with self._lock:
            self._consumed.add(body)

    @property
    def acks(self):
        """All acks so far."""
        with self._lock:
            return list(self._acks)

    @property
    def failures(self):
        """All failed sends so far."""
        with self._lock:
            return list(self._failures)

    def count(self):
        """How many sends were acked so far."""
        with self._lock:
            return len(self._acks)

    def unconsumed(self, bodies):
        """Which of `bodies` the push consumer has not been given."""
        with self._lock:
            return bodies - self._consumed


class RustLoad:
    """The program `load` of the Rust workspace: senders, a push consumer, and fresh clients that probe a group."""

    name = "rust"

    def __init__(self, namesrv, topic, group, tasks, pause_ms, log):
        self.records, self.consumer_group = Records(), group
        self._events = queue.Queue()
        environment = dict(os.environ, GANTRY_NAMESRV=namesrv)
        self._process = subprocess.Popen(
            [str(rust_binary()), topic, group, str(tasks), str(pause_ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._await("ready", 60)

    def _read(self):
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] in ("acked", "probed"):
                self.records.ack(self._ack(event))
            if event["event"] == "consumed":
                self.records.consume(event["body"])
            elif event["event"] == "failed":
                self.records.fail(event["body"], event["begun"] / 1e6, event["why"])
            elif event["event"] != "acked":
                self._events.put(event)
        self._events.put({"event": "closed"})

    @staticmethod
    def _ack(event):
        begun = event.get("begun", event["at"])
        return Ack(
            event["body"], begun / 1e6, event["at"] / 1e6, event["broker"], event["queue"], event["offset"], None
        )

    def _await(self, wanted, deadline_s):
        end = time.monotonic() + deadline_s
        while True:
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the Rust load did not say '{wanted}' in {deadline_s} s") from None
            if event["event"] == wanted:
                return event
            assert event["event"] not in ("closed", "probe failed"), f"waiting for '{wanted}', got {event}"

    def _command(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def arm(self, namesrv):
        """Start clients that will ask for their first route when they probe."""
        self._command(f"arm {namesrv}")
        self._await("armed", 60)

    def begin_probe(self, topic, broker, queue_id, namesrv):
        """Send to one queue with fresh clients until an ack comes."""
        self._command(f"probe {topic} {broker} {queue_id} {namesrv}")

    def probe_result(self):
        """Wait for the probe: when it was acked, and how many clients it took."""
        event = self._await("probed", 90)
        return event["at"] / 1e6, event["tries"]

    def stop(self):
        """End the senders; the consumer goes on."""
        self._command("stop")
        self._await("stopped", 60)

    def end(self):
        """End everything."""
        self._command("end")
        self._await("ended", 60)
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join()

    def kill(self):
        """End the process without ceremony, after a failure elsewhere."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class CppLoad:
    """Threads that send through the C++ client, and its push consumer."""

    name = "cpp"

    def __init__(self, namesrv, topic, group, tasks, pause_ms):
        import stock

        self._stock = stock
        self.records, self.consumer_group = Records(), group
        self._topic, self._pause_s = topic, pause_ms / 1000
        self._stopping = threading.Event()
        self._consumer = stock.PushConsumer(group)
        self._consumer.set_namesrv_addr(namesrv)
        self._consumer.set_instance_name("failover-consumer")
        self._consumer.subscribe(topic, lambda message: self.records.consume(message.body.decode()))
        self._consumer.start()
        # An instance each: senders that share connections lose sends to each other's lock (README).
        self._producers = [
            stock.producer(namesrv, f"{group}-producer-{task}", instance=f"sender-{task}") for task in range(tasks)
        ]
        self._threads = [
            threading.Thread(target=self._send, args=(task, producer), daemon=True)
            for task, producer in enumerate(self._producers)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, task, producer):
        number = 0
        while not self._stopping.wait(self._pause_s):
            body, begun = f"cpp-{task}-{number}", time.time()
            number += 1
            try:
                result = producer.send_sync(self._stock.message(self._topic, body))
            except Exception as error:
                self.records.fail(body, begun, f"{type(error).__name__}: {error}")
                continue
            if result.status == self._stock.SendStatus.OK:
                self.records.ack(Ack(body, begun, time.time(), None, None, result.offset, result.msg_id))
            else:
                self.records.fail(body, begun, str(result.status))

    def stop(self):
        """End the senders; the consumer goes on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a C++ send did not return in 60 s"

    def end(self):
        """End everything."""
        for client in [*self._producers, self._consumer]:
            client.shutdown()

    def kill(self):
        """Stop sending, after a failure elsewhere."""
        self._stopping.set()


def rust_binary():
    """The load program, built if necessary."""
    manifest = HERE / "rust" / "Cargo.toml"
    command = ["cargo", "build", "--quiet", "--manifest-path", str(manifest), "--bin", "load"]
    subprocess.run(command, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", HERE / "rust" / "target")
    return pathlib.Path(target) / "debug" / "load"
