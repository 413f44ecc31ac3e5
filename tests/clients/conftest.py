"""Fixtures: the cluster's addresses, fresh names, and clients that are shut down after each test."""

import itertools
import json
import os
import uuid

import pytest
from rocketmq.exceptions import RocketMQException

from cluster import eventually
import remoting
import stock

DELIVERY_S = 60
QUEUES = 2

_names = itertools.count(1)


class World:
    """One test's view of the cluster: fresh topics and groups, and clients that end with the test."""

    def __init__(self):
        self.namesrv = os.environ["GANTRY_NAMESRV"]
        self.nodes = json.loads(os.environ["GANTRY_CLUSTER"])["nodes"]
        self._started = []

    def name(self, kind):
        """A name that no other test and no other run uses."""
        return f"{kind}-{next(_names)}-{uuid.uuid4().hex[:8]}"

    def address(self, group):
        """Some node's address for a broker group."""
        return self.nodes[0]["groups"][group]

    @property
    def brokers(self):
        """Names of all broker groups."""
        return sorted({name for node in self.nodes for name in node["groups"]})

    def topic(self, queues=QUEUES, attributes=""):
        """A fresh topic with `queues` queues in every broker group, visible in every name server's route."""
        topic = self.name("topic")
        for broker in self.brokers:
            remoting.create_topic(self.address(broker), topic, queues, attributes)
        wanted = {broker: queues for broker in self.brokers}
        for node in self.nodes:
            eventually(lambda: remoting.route(node["namesrv"], topic) == wanted, 10, f"{topic} at node {node['id']}")
        return topic

    def producer(self, **options):
        """A started producer."""
        return self._keep(stock.producer(self.namesrv, self.name("producer"), **options))

    def connected_producer(self):
        """A producer that has connections to all groups.

        While this client connects, its heartbeat and its sends get into each other's way, and what it does not
        retry (async, oneway) is then lost or fails before it leaves the client.
        """
        producer, topic = self.producer(), self.topic()

        def one_pass():
            try:
                for _ in range(2 * len(self.queues(topic))):
                    producer.send_sync(stock.message(topic, "connect"))
            except RocketMQException:
                return False
            return True

        eventually(one_pass, 20, "connections to all groups")
        return producer

    def consumer(self, group, topic, instance=None, expression="*", **options):
        """A started push consumer and its recorder."""
        instance = instance or self.name("instance")
        started, recorder = stock.consumer(self.namesrv, group, topic, instance, expression, **options)
        return self._keep(started), recorder

    def reluctant_consumer(self, group, topic, refusals):
        """A started push consumer that hands each message back `refusals` times; gives its attempts."""
        started, attempts = stock.reluctant_consumer(
            self.namesrv, group, topic, self.name("instance"), refusals
        )
        self._keep(started)
        return attempts

    def puller(self):
        """A started pull consumer."""
        made = stock.Puller(self.namesrv, self.name("puller"))
        self._keep(made._consumer)
        return made

    def stop(self, client):
        """Shut a client down before the test ends."""
        self._started.remove(client)
        client.shutdown()

    def _keep(self, client):
        self._started.append(client)
        return client

    def close(self):
        """Shut everything down, the newest first."""
        while self._started:
            self._started.pop().shutdown()

    def queues(self, topic, queues=QUEUES):
        """All queues of a topic made by `topic()`."""
        return [stock.Queue(broker, queue) for broker in self.brokers for queue in range(queues)]

    def committed(self, group, topic, queues=QUEUES):
        """Committed offset per queue, None where there is none."""
        offsets = {}
        for broker in self.brokers:
            with remoting.Connection(self.address(broker)) as connection:
                for queue in range(queues):
                    key = stock.Queue(broker, queue)
                    offsets[key] = remoting.committed_offset(connection, group, topic, queue)
        return offsets

    def ends(self, topic, queues=QUEUES):
        """Next offset to be written per queue."""
        ends = {}
        for broker in self.brokers:
            with remoting.Connection(self.address(broker)) as connection:
                for queue in range(queues):
                    ends[stock.Queue(broker, queue)] = remoting.max_offset(connection, topic, queue)
        return ends


@pytest.fixture
def world():
    """The cluster as one test sees it."""
    made = World()
    yield made
    made.close()


def delivered(recorder, wanted, deadline_s=DELIVERY_S):
    """Wait until a recorder has every wanted body; returns all bodies it got by then."""
    wanted = set(wanted)

    def missing():
        left = wanted - set(recorder.bodies)
        return f"{len(left)} of {len(wanted)} messages, such as {sorted(left)[:3]}"

    eventually(lambda: wanted <= set(recorder.bodies), deadline_s, missing)
    return recorder.bodies
