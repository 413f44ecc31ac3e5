"""Pull and push consumers of the C++ client: offsets, tags, order, broadcasting, restarts, shared queues."""

import threading
import time

from cluster import eventually
from conftest import DELIVERY_S, delivered
import remoting
import stock


def send_to_all_queues(world, topic, bodies):
    """One message per queue and per body, each to a queue of our choice; returns what was sent where."""
    sent = {}
    for queue in world.queues(topic):
        with remoting.Connection(world.address(queue.broker)) as connection:
            for body in bodies:
                text = f"{body}@{queue.broker}:{queue.queue_id}"
                answer = remoting.send(connection, topic, queue.queue_id, text.encode())
                assert answer.code == remoting.SUCCESS, f"{queue}: {answer.code} {answer.remark}"
                sent[text] = queue
    return sent


def send(producer, topic, bodies, **parts):
    """Synchronous sends that must all succeed."""
    for body in bodies:
        assert producer.send_sync(stock.message(topic, body, **parts)).status == stock.SendStatus.OK


def test_pull_reads_from_the_first_offset_from_the_middle_and_from_the_last(world):
    topic = world.topic()
    send_to_all_queues(world, topic, [f"m{i}" for i in range(10)])
    puller = world.puller()
    assert puller.queues(topic) == world.queues(topic)
    for queue in world.queues(topic):
        wanted = [f"m{i}@{queue.broker}:{queue.queue_id}" for i in range(10)]
        whole = puller.read(topic, queue)
        assert [entry.body for entry in whole] == wanted
        assert [entry.offset for entry in whole] == list(range(10))
        assert [entry.body for entry in puller.read(topic, queue, 7)] == wanted[7:]
        few = puller.pull(topic, queue, 3, count=2)
        assert (few.status, [entry.body for entry in few.messages]) == (stock.FOUND, wanted[3:5])
        assert few.next_offset == 5
        last = puller.pull(topic, queue, 10)
        assert (last.status, last.messages) == (stock.NO_NEW_MESSAGE, [])


def test_pull_beyond_the_end_is_told_so(world):
    topic = world.topic()
    send_to_all_queues(world, topic, ["only"])
    for queue in world.queues(topic):
        assert world.puller().pull(topic, queue, 1000).status == stock.OFFSET_ILLEGAL


def test_pull_filters_by_tag(world):
    topic, producer = world.topic(), world.producer()
    for colour in ("red", "green", "blue"):
        send(producer, topic, [f"{colour}-{i}" for i in range(8)], tags=colour)
    send(producer, topic, ["untagged"])
    puller = world.puller()
    assert {m.body for m in puller.read_all(topic, "green")} == {f"green-{i}" for i in range(8)}
    both = {m.body for m in puller.read_all(topic, "red || blue")}
    assert both == {f"{colour}-{i}" for colour in ("red", "blue") for i in range(8)}
    assert puller.read_all(topic, "violet") == []
    assert len(puller.read_all(topic)) == 25


def test_push_delivers_everything_once(world):
    topic, producer = world.topic(), world.producer()
    before = [f"before-{i}" for i in range(30)]
    send(producer, topic, before)
    _, recorder = world.consumer(world.name("group"), topic)
    delivered(recorder, before)
    after = [f"after-{i}" for i in range(30)]
    send(producer, topic, after)
    bodies = delivered(recorder, before + after)
    assert sorted(bodies) == sorted(before + after), "something was delivered twice to a lone consumer"


def test_push_wakes_a_parked_pull_at_once(world):
    topic, producer = world.topic(), world.producer()
    _, recorder = world.consumer(world.name("group"), topic)
    # A queue whose first pull met a connection in the making waits for the client's next rebalance, 10 s.
    all_queues_seen(world, topic, [recorder], "first")
    slowest = 0.0
    for i in range(20):
        started = time.monotonic()
        send(producer, topic, [f"wake-{i}"])
        delivered(recorder, [f"wake-{i}"], 30)
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 5, f"a message waited {slowest:.1f} s for a consumer that was waiting for it"


def test_push_filters_by_tag(world):
    topic, producer = world.topic(), world.producer()
    _, recorder = world.consumer(world.name("group"), topic, expression="red || blue")
    for i in range(10):
        for colour in ("red", "green", "blue"):
            send(producer, topic, [f"{colour}-{i}"], tags=colour)
    send(producer, topic, ["the end"], tags="blue")
    wanted = [f"{colour}-{i}" for colour in ("red", "blue") for i in range(10)] + ["the end"]
    assert sorted(delivered(recorder, wanted)) == sorted(wanted)


def test_orderly_consumption_keeps_the_order_of_each_queue(world):
    topic, producer = world.topic(), world.producer()
    _, recorder = world.consumer(world.name("group"), topic, orderly=True)
    for step in range(20):
        for key in range(4):
            result = stock.send_in_order(producer, stock.message(topic, f"{key}:{step:02}"), key)
            assert result.status == stock.SendStatus.OK
    bodies = delivered(recorder, [f"{key}:{step:02}" for key in range(4) for step in range(20)])
    for key in range(4):
        mine = [body for body in bodies if body.startswith(f"{key}:")]
        assert mine == [f"{key}:{step:02}" for step in range(20)], f"key {key} arrived out of order"


def all_queues_seen(world, topic, recorders, warm_up):
    """Send rounds to every queue until each recorder has had a message of each queue."""

    def one_round():
        sent = send_to_all_queues(world, topic, [f"{warm_up}{next(counter)}"])
        eventually(lambda: any(set(sent) & set(r.bodies) for r in recorders), DELIVERY_S, "any warm-up message")
        return all(len({body.split("@")[1] for body in r.bodies}) == len(sent) for r in recorders)

    counter = iter(range(10_000))
    eventually(one_round, DELIVERY_S, lambda: (
        f"all queues in {[sorted({body.split('@')[1] for body in r.bodies}) for r in recorders]}"
    ), pause_s=0.5)


def test_broadcasting_gives_everything_to_every_consumer(world):
    topic, group = world.topic(), world.name("group")
    recorders = []
    for _ in range(2):
        _, recorder = world.consumer(group, topic, message_model=stock.MessageModel.BROADCASTING)
        recorders.append(recorder)
    all_queues_seen(world, topic, recorders, "warm-up")
    sent = send_to_all_queues(world, topic, [f"news-{i}" for i in range(5)])
    for recorder in recorders:
        bodies = delivered(recorder, sent)
        assert sorted(body for body in bodies if body in sent) == sorted(sent)


class Rounds:
    """Rounds of one message per queue, and who was given which."""

    def __init__(self, world, topic, recorders):
        self._world, self._topic, self._recorders = world, topic, recorders
        self.sent = set()
        self._number = 0

    def play(self):
        """Send a round and wait until somebody has each message; returns each recorder's share of queues."""
        self._number += 1
        sent = send_to_all_queues(self._world, self._topic, [f"round-{self._number}"])
        self.sent |= set(sent)
        eventually(lambda: set(sent) <= self.delivered(), DELIVERY_S, lambda: (
            f"{sorted(set(sent) - self.delivered())} of round {self._number}"
        ))
        return [{sent[body] for body in set(recorder.bodies) & set(sent)} for recorder in self._recorders]

    def delivered(self):
        """Every body that any of the consumers was given."""
        return {body for recorder in self._recorders for body in recorder.bodies}


def test_two_consumers_share_the_queues_and_one_takes_over(world):
    topic, group = world.topic(), world.name("group")
    queues = set(world.queues(topic))
    stays, first = world.consumer(group, topic)
    rounds = Rounds(world, topic, [first])
    eventually(lambda: rounds.play() == [queues], DELIVERY_S, "all queues at the only consumer")

    leaves, second = world.consumer(group, topic)
    rounds._recorders.append(second)

    def shared():
        mine, theirs = rounds.play()
        return len(mine) == len(theirs) == len(queues) // 2 and not mine & theirs

    eventually(shared, DELIVERY_S, "an even share of the queues for both consumers")
    assert len(remoting.consumers(world.address(world.brokers[0]), group)) == 2

    stop_sending = threading.Event()
    background, failed = set(), []
    producer = world.connected_producer()

    def keep_sending():
        while not stop_sending.is_set():
            body = f"while-leaving-{len(background)}"
            try:
                send(producer, topic, [body])
                background.add(body)
            except Exception as error:
                failed.append(error)
                return

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        world.stop(leaves)
        eventually(lambda: rounds.play() == [queues, set()], DELIVERY_S, "all queues back at the first consumer")
    finally:
        stop_sending.set()
        sender.join()
    assert not failed, failed
    wanted = rounds.sent | background
    eventually(lambda: wanted <= rounds.delivered(), DELIVERY_S, lambda: (
        f"{len(wanted - rounds.delivered())} of {len(wanted)} messages"
    ))
    assert stays is not None


def test_offsets_survive_a_consumer_restart(world):
    topic, group, producer = world.topic(), world.name("group"), world.producer()
    old = [f"old-{i}" for i in range(40)]
    send(producer, topic, old)
    started, recorder = world.consumer(group, topic)
    delivered(recorder, old)
    ends = world.ends(topic)
    assert sum(ends.values()) == 40
    written = {queue: end for queue, end in ends.items() if end}
    eventually(lambda: {q: world.committed(group, topic)[q] for q in written} == written, 30, lambda: (
        f"offsets {world.committed(group, topic)} to become {ends}"
    ))
    world.stop(started)
    between = [f"between-{i}" for i in range(20)]
    send(producer, topic, between)
    _, restarted = world.consumer(group, topic)
    bodies = delivered(restarted, between)
    assert sorted(bodies) == sorted(between), "the restarted consumer was given messages it had finished"
