"""Topics that keep one copy of a message, and the C++ client trying again by itself because it heard nothing.

The client sets a new unique key at each try of a single send, so nobody can tell that it is the same message. The
messages of a batch get theirs once; a batch may be of one.
"""

import collections
import json
import tempfile
import threading

import pytest
from rocketmq.exceptions import RocketMQException

from cluster import Cluster, eventually
import lossy
import remoting
import stock

IDEMPOTENT = "+idempotent.window=10m"
PRODUCERS = 4
MORE_ACKS = 50


@pytest.fixture
def way(world, request):
    """A way to the cluster that loses the first answer to each send."""
    with lossy.Lossy(world.nodes[0]["namesrv"], request.param) as made:
        yield made


def producer_over(world, way):
    """A producer with connections of its own, over a way that loses answers."""
    return world._keep(stock.producer(way.namesrv, world.name("producer"), instance=world.name("instance")))


def copies_of(stored):
    """How often each message is there, by its unique key and body."""
    return collections.Counter((entry.msg_id, entry.body) for entry in stored)


@pytest.mark.parametrize("way", [lossy.SYSTEM_ERROR, lossy.SWALLOWED], ids=["refused", "unanswered"], indirect=True)
@pytest.mark.parametrize("attributes,copies", [(IDEMPOTENT, 1), ("", 2)], ids=["idempotent", "ordinary"])
def test_a_batch_that_is_sent_again_is_kept_once(world, way, attributes, copies):
    topic, producer = world.topic(attributes=attributes), producer_over(world, way)
    # An answer that never comes costs the client three seconds.
    count = 2 if way.swallows else 20
    batches = [[f"{i}-{part}" for part in range(1 + i % 3)] for i in range(count)]
    for bodies in batches:
        result = producer.send_batch([stock.message(topic, body) for body in bodies])
        assert result.status == stock.SendStatus.OK
    tries = collections.Counter(sent.body for sent in way.sent)
    assert set(tries.values()) == {2}, "the client has tried again, with the same keys"
    stored = world.puller().read_all(topic)
    assert collections.Counter(entry.body for entry in stored) == {
        body: copies for bodies in batches for body in bodies
    }
    assert set(copies_of(stored).values()) == {copies}
    if attributes:
        assert len({entry.queue.broker for entry in stored}) == 1, "a topic has one home"


@pytest.mark.parametrize("way", [lossy.SYSTEM_ERROR], ids=["refused"], indirect=True)
def test_a_single_send_is_another_message_at_each_try(world, way):
    """What no broker can help: see the module's text. When this fails, the client has become better."""
    topic, producer = world.topic(attributes=IDEMPOTENT), producer_over(world, way)
    made = stock.message(topic, "single")
    made.set_property("UNIQ_KEY", "chosen")
    assert producer.send_sync(made).status == stock.SendStatus.OK
    keys = [sent.key for sent in way.sent]
    assert len(set(keys)) == 2 and "chosen" not in keys
    stored = world.puller().read_all(topic)
    assert sorted(entry.msg_id for entry in stored) == sorted(keys)


class Load(threading.Thread):
    """Sends batches of one until it is stopped, and remembers what was acked."""

    def __init__(self, namesrv, topic, number):
        super().__init__()
        self.topic = topic
        self.stopped = threading.Event()
        self.acked, self.unknown = [], []
        self._prefix = f"{number}"
        self._producer = stock.producer(namesrv, f"load-{topic}-{number}", instance=f"load-{topic}-{number}")

    def run(self):
        number = 0
        while not self.stopped.is_set():
            number += 1
            body = f"{self._prefix}-{number}"
            try:
                self._producer.send_batch([stock.message(self.topic, body)])
            except RocketMQException:
                self.unknown.append(body)
            else:
                self.acked.append(body)
        self._producer.shutdown()


def go_on(loads):
    """Wait until two loads of each topic have had more acks; others may wait for their client's next look at routes."""
    before = {load: len(load.acked) for load in loads}

    def moved(topic):
        mine = [load for load in loads if load.topic == topic]
        return sum(len(load.acked) >= before[load] + MORE_ACKS for load in mine) >= 2

    eventually(lambda: all(moved(load.topic) for load in loads), 40, "acks of every topic")


def home_of(cluster, topic):
    """The broker group that takes the sends of an idempotent topic."""
    fields = {"topic": topic, "acceptStandardJsonOnly": "true"}
    answer = remoting.call(cluster.nodes[1]["namesrv"], remoting.GET_ROUTE, fields)
    writable = [entry["brokerName"] for entry in json.loads(answer.body)["queueDatas"] if entry["perm"] & 2]
    assert len(writable) == 1, writable
    return writable[0]


def stored_after_a_kill(cluster, topics):
    """Kill the leader of the home of the idempotent topic under load; the loads, and what is stored in the end."""
    home = home_of(cluster, "idempotent")
    leader = eventually(lambda: cluster.leader(home), 10, f"a leader of {home}")
    loads = [Load(cluster.namesrv, topic, number) for number in range(PRODUCERS) for topic in topics]
    for load in loads:
        load.start()
    try:
        go_on(loads)
        cluster.kill(leader)
        go_on(loads)
    finally:
        for load in loads:
            load.stopped.set()
        for load in loads:
            load.join()
    cluster.restart(leader)
    eventually(cluster.settled, 30, "three nodes in one state")
    with stock.Puller(cluster.namesrv, "verifier") as puller:
        return loads, {topic: puller.read_all(topic) for topic in topics}


def test_what_is_sent_while_the_leader_is_killed_is_kept_once(capsys):
    topics = {"idempotent": IDEMPOTENT, "ordinary": ""}
    with tempfile.TemporaryDirectory(prefix="gantry-idempotent-") as data, Cluster(data) as cluster:
        for topic, attributes in topics.items():
            for group in cluster.groups:
                remoting.create_topic(cluster.nodes[1]["groups"][group], topic, 2, attributes)
            for node in cluster.nodes.values():
                eventually(lambda: len(remoting.route(node["namesrv"], topic) or {}) == 3, 10, f"a route of {topic}")
        loads, stored = stored_after_a_kill(cluster, topics)
    for topic in topics:
        acked = {body for load in loads if load.topic == topic for body in load.acked}
        found = collections.Counter(entry.body for entry in stored[topic])
        assert acked <= set(found), f"lost: {sorted(acked - set(found))[:5]}"
        copies = sum(found.values()) - len(found)
        unknown = sum(len(load.unknown) for load in loads if load.topic == topic)
        with capsys.disabled():
            print(f"\n{topic}: {len(acked)} acked, {unknown} of unknown outcome, {copies} copies")
        if topic == "idempotent":
            # Not by the unique key alone: threads of this client sometimes give one key to two messages.
            assert set(copies_of(stored[topic]).values()) == {1}
