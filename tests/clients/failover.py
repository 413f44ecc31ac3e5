"""Kill the leader of a group again and again under a stock client's load, and account for every message.

Prints one JSON line:

- `kills`, `acked`, `failed` (sends that the client reported as failed);
- `lost`: acked messages that a pull consumer does not find at the queue and offset of the ack;
- `unconsumed`: acked messages that the push consumer was not given;
- `offsets_rolled_back`: times that a committed consumer offset was seen lower than before;
- `group_gap_ms`: from kill -9 to the next send acked by the killed group, seen by stock clients that ask for the
  route then (`p50`, `p99`, `max`; a client that has its route already keeps it for up to 30 s);
- `server_gap_ms`: the same for plain requests to a node that lives;
- `longest_gap_ms`: the longest time in which the whole load had no ack;
- `clients`: acked and failed by client.

Ends with 1 if anything failed, was lost, was rolled back or stayed unconsumed, or if the 99th percentile of the
group gap is over the limit.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile
import threading
import time
import uuid

from cluster import Cluster, client_home, eventually
from loads import Ack, CppLoad, RustLoad
import remoting

QUEUES = 2
SETTLE_S = 120
CATCH_UP_S = 120


def say(text):
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def create_topic(cluster, queues):
    """A fresh topic in all groups, visible at all name servers."""
    topic = f"failover-{uuid.uuid4().hex[:8]}"
    for group in cluster.groups:
        remoting.create_topic(cluster.addresses(group)[0], topic, queues)
    wanted = {group: queues for group in cluster.groups}
    for node in cluster.nodes.values():
        eventually(lambda: remoting.route(node["namesrv"], topic) == wanted, 20, f"{topic} at node {node['id']}")
    return topic


class OffsetWatch(threading.Thread):
    """Reads all committed offsets over and over and notes every one that went back."""

    def __init__(self, cluster, topic, consumer_groups):
        super().__init__(daemon=True)
        self._cluster, self._topic, self._consumer_groups = cluster, topic, consumer_groups
        self._ending = threading.Event()
        self._highest = {}
        self.down = set()
        self.rolled_back, self.readings = [], 0

    def run(self):
        while not self._ending.wait(0.1):
            self.look()

    def look(self):
        """One reading of every offset, from any node that is up."""
        for broker in self._cluster.groups:
            for address in self._cluster.addresses(broker, without=self.down)[:1]:
                try:
                    with remoting.Connection(address, 5) as connection:
                        self._look_at(connection, broker)
                except (OSError, AssertionError):
                    pass  # no answer is no reading; the node may just have been killed

    def _look_at(self, connection, broker):
        for group in self._consumer_groups:
            for queue in range(QUEUES):
                offset = remoting.committed_offset(connection, group, self._topic, queue)
                key, now = (group, broker, queue), -1 if offset is None else offset
                before = self._highest.get(key, -1)
                self.readings += 1
                if now < before:
                    self.rolled_back.append({"where": key, "before": before, "after": offset, "at": time.time()})
                self._highest[key] = now

    def finish(self):
        """Stop after one last reading."""
        self._ending.set()
        self.join()
        self.look()


class PlainProbe(threading.Thread):
    """Sends plain requests to one address of a group until one is acked."""

    def __init__(self, address, topic, broker, deadline_s=60):
        super().__init__(daemon=True)
        self._address, self._topic, self._broker = address, topic, broker
        self._end = time.monotonic() + deadline_s
        self.ack, self.last_answer = None, None
        self.start()

    def run(self):
        while self.ack is None and time.monotonic() < self._end:
            body, begun = f"plain-{uuid.uuid4().hex}", time.time()
            try:
                with remoting.Connection(self._address, 5) as connection:
                    answer = remoting.send(connection, self._topic, 0, body.encode())
            except OSError as error:
                self.last_answer = error
                continue
            self.last_answer = (answer.code, answer.remark)
            if answer.code == remoting.SUCCESS:
                queue, offset = int(answer.fields["queueId"]), int(answer.fields["queueOffset"])
                self.ack = Ack(body, begun, time.time(), self._broker, queue, offset, None)

    def result(self):
        """The ack, once there is one."""
        self.join()
        assert self.ack is not None, f"{self._broker} took no plain send: {self.last_answer}"
        return self.ack


class Run:
    """One measurement."""

    def __init__(self, cluster, options):
        self.cluster, self.options = cluster, options
        self.topic = create_topic(cluster, QUEUES)
        self.gaps, self.server_gaps, self.plain_acks = [], [], []
        senders = options.tasks if options.client in ("rust", "both") else 0
        self._log = open(cluster.data / "load.log", "ab")
        self.rust = RustLoad(
            cluster.namesrv, self.topic, f"{self.topic}-rust", senders, options.pause_ms, self._log
        )
        self.loads = [self.rust]
        if options.client in ("cpp", "both"):
            group = f"{self.topic}-cpp"
            self.loads.append(CppLoad(cluster.namesrv, self.topic, group, options.tasks, options.pause_ms))
        self.watch = OffsetWatch(cluster, self.topic, [load.consumer_group for load in self.loads])
        self.watch.start()

    def acked(self):
        """How many sends were acked so far."""
        return sum(load.records.count() for load in self.loads)

    def flowing(self, more):
        """Wait until the load got `more` acks."""
        wanted = self.acked() + more
        eventually(lambda: self.acked() >= wanted, SETTLE_S, lambda: f"{wanted - self.acked()} of {more} acks")

    def kill_once(self, number):
        """Kill the leader of one group, see when the group takes writes again, bring the node back."""
        group = self.cluster.groups[number % len(self.cluster.groups)]
        eventually(self.cluster.settled, SETTLE_S, lambda: f"a settled cluster; {self.cluster.log_tail(1500)}", 0.2)
        node = eventually(lambda: self.cluster.leader(group), SETTLE_S, f"a leader of {group}")
        living = ";".join(n["namesrv"] for i, n in self.cluster.nodes.items() if i != node)
        self.rust.arm(living)
        self.flowing(50)

        self.watch.down.add(node)
        at = self.cluster.kill(node)
        self.rust.begin_probe(self.topic, group, number % QUEUES, living)
        plain = PlainProbe(self.cluster.addresses(group, without={node})[0], self.topic, group)
        acked_at, tries = self.rust.probe_result()
        self.plain_acks.append(plain.result())
        self.gaps.append((acked_at - at) * 1000)
        self.server_gaps.append((self.plain_acks[-1].at_s - at) * 1000)
        say(
            f"kill {number + 1}: {group} led by node {node}, again after {self.gaps[-1]:.0f} ms "
            f"({tries} clients), plain requests {self.server_gaps[-1]:.0f} ms"
        )
        self.cluster.restart(node)
        eventually(lambda: self.cluster.status(node), SETTLE_S, f"node {node} to answer again")
        self.watch.down.discard(node)

    def drain(self):
        """Stop sending, and let the consumers come to the end."""
        eventually(self.cluster.settled, SETTLE_S, lambda: f"a settled cluster; {self.cluster.log_tail(1500)}", 0.2)
        for load in self.loads:
            load.stop()
        try:
            eventually(lambda: not self.unconsumed(), CATCH_UP_S, "nothing", 0.2)
        except AssertionError:
            bodies = {ack.body for ack in self.acks()}
            for load in self.loads:
                missing = sorted(load.records.unconsumed(bodies))
                say(f"{load.name}: {len(missing)} unconsumed after {CATCH_UP_S} s: {missing[:5]}")
        self.watch.finish()

    def unconsumed(self):
        """Acked messages, of any client, that some consumer group was not given."""
        bodies = {ack.body for ack in self.acks()}
        return set().union(*(load.records.unconsumed(bodies) for load in self.loads))

    def acks(self):
        """Every ack of the run."""
        return [ack for load in self.loads for ack in load.records.acks] + self.plain_acks

    def end(self):
        """Shut the clients down."""
        for load in self.loads:
            load.end()
        self._log.close()

    def abandon(self):
        """After a failure: leave nothing behind."""
        for load in self.loads:
            load.kill()


def lost(namesrv, topic, acks):
    """Acks whose message a pull consumer does not find where the ack put it."""
    import stock

    with stock.Puller(namesrv, f"{topic}-verifier") as puller:
        stored = puller.read_all(topic)
    at_place = {(entry.queue.broker, entry.queue.queue_id, entry.offset): entry.body for entry in stored}
    by_id = {(entry.msg_id, entry.offset): entry.body for entry in stored}
    missing = []
    for ack in acks:
        if ack.broker is not None:
            found = at_place.get((ack.broker, ack.queue, ack.offset))
        else:
            found = by_id.get((ack.msg_id, ack.offset))
        if found != ack.body:
            missing.append((ack, found))
    return missing, len(stored)


def longest_gap_ms(loads):
    """The longest time between two acks of the whole load."""
    times = sorted(ack.at_s for load in loads for ack in load.records.acks if not ack.body.startswith("probe-"))
    return max((after - before for before, after in zip(times, times[1:])), default=0.0) * 1000


def percentiles(values):
    """p50, p99 (nearest rank) and the maximum, in whole milliseconds."""
    ordered = sorted(values)
    rank = {name: max(0, math.ceil(share * len(ordered)) - 1) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {name: round(ordered[index]) for name, index in rank.items()} | {"max": round(ordered[-1])}


def measure(cluster, options):
    """Run it all; returns the figures."""
    run = Run(cluster, options)
    try:
        run.flowing(100)
        for number in range(options.kills):
            run.kill_once(number)
        run.drain()
        acks = run.acks()
        missing, stored = lost(cluster.namesrv, run.topic, acks)
        unconsumed = run.unconsumed()
        run.end()
    except BaseException:
        run.abandon()
        raise
    failures = [failure for load in run.loads for failure in load.records.failures]
    for what, found in (("failed", failures), ("lost", missing), ("rolled back", run.watch.rolled_back)):
        for one in found[:3] + found[3:][-3:]:
            say(f"{what}: {one}")
    return {
        "kills": options.kills, "acked": len(acks), "failed": len(failures), "lost": len(missing),
        "unconsumed": len(unconsumed), "offsets_rolled_back": len(run.watch.rolled_back),
        "group_gap_ms": percentiles(run.gaps), "server_gap_ms": percentiles(run.server_gaps),
        "longest_gap_ms": round(longest_gap_ms(run.loads)), "stored": stored,
        "offset_readings": run.watch.readings,
        "clients": {
            load.name: {"acked": load.records.count(), "failed": len(load.records.failures)} for load in run.loads
        },
    }


def main():
    """Parse, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--client", choices=["rust", "cpp", "both"], default="cpp", help="who sends")
    parser.add_argument("--tasks", type=int, default=6, help="concurrent senders per client")
    parser.add_argument("--pause-ms", type=int, default=5, help="pause of a sender after each send")
    parser.add_argument("--gap-limit-ms", type=int, default=1000, help="for the 99th percentile of the group gap")
    parser.add_argument("--data", type=pathlib.Path, help="keep the cluster's data here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gantry-failover-") as scratch:
        data = options.data or pathlib.Path(scratch)
        client_home(data / "home")
        with Cluster(data) as cluster:
            figures = measure(cluster, options)
    print(json.dumps(figures), flush=True)
    zero = ("failed", "lost", "unconsumed", "offsets_rolled_back")
    return int(any(figures[name] for name in zero) or figures["group_gap_ms"]["p99"] > options.gap_limit_ms)


if __name__ == "__main__":
    sys.exit(main())
