"""Every way the C++ client can send, read back by its pull consumer at the places the broker named."""

import hashlib
import queue
import random
import string

import pytest
from rocketmq.exceptions import RocketMQException

from cluster import eventually
import remoting
import stock

CALLBACK_S = 20


def test_sync_sends_are_stored_once_with_all_their_parts(world):
    topic, producer = world.topic(), world.producer()
    acks = {}
    for i in range(30):
        sent = stock.message(topic, f"sync-{i}", tags=f"tag{i % 3}", keys=f"key{i}", note=f"note {i} äöü 你好")
        result = producer.send_sync(sent)
        assert result.status == stock.SendStatus.OK
        acks[f"sync-{i}"] = result
    assert len({ack.msg_id for ack in acks.values()}) == 30

    stored = world.puller().read_all(topic)
    assert sorted(entry.body for entry in stored) == sorted(acks)
    for entry in stored:
        i = int(entry.body.removeprefix("sync-"))
        assert (entry.tags, entry.keys, entry.note) == (f"tag{i % 3}", f"key{i}", f"note {i} äöü 你好")
        assert entry.offset == acks[entry.body].offset, f"{entry.body} was acked at another queue offset"
    assert {entry.queue.broker for entry in stored} == set(world.brokers), "not all groups were written to"


def test_async_sends_call_back_and_are_stored_once(world):
    topic, producer = world.topic(), world.connected_producer()
    results, failures = queue.Queue(), queue.Queue()
    messages = [stock.message(topic, f"async-{i}") for i in range(30)]
    for made in messages:
        producer.send_async(made, results.put, failures.put)
    eventually(lambda: results.qsize() + failures.qsize() == 30, CALLBACK_S, lambda: (
        f"{30 - results.qsize() - failures.qsize()} callbacks"
    ))
    assert failures.empty(), f"failed: {failures.get()}"
    acks = [results.get() for _ in range(30)]
    assert all(ack.status == stock.SendStatus.OK for ack in acks)
    stored = world.puller().read_all(topic)
    assert sorted(entry.body for entry in stored) == sorted(f"async-{i}" for i in range(30))


def test_oneway_sends_arrive(world):
    topic, producer = world.topic(), world.connected_producer()
    wanted = sorted(f"oneway-{i}" for i in range(30))
    for body in wanted:
        producer.send_oneway(stock.message(topic, body))
    eventually(lambda: sum(world.ends(topic).values()) >= 30, CALLBACK_S, lambda: f"{world.ends(topic)} of 30")
    assert sorted(entry.body for entry in world.puller().read_all(topic)) == wanted


def test_a_batch_is_stored_in_one_queue_in_order(world):
    topic, producer = world.topic(), world.producer()
    first = producer.send_sync(stock.message(topic, "warm-up"))
    assert first.status == stock.SendStatus.OK
    bodies = [f"batch-{i:02}" for i in range(20)]
    result = producer.send_batch([stock.message(topic, body, tags=f"tag-{body}") for body in bodies])
    assert result.status == stock.SendStatus.OK

    stored = [entry for entry in world.puller().read_all(topic) if entry.body != "warm-up"]
    assert [entry.body for entry in stored] == bodies
    assert len({entry.queue for entry in stored}) == 1, "the batch was spread over queues"
    assert [entry.offset for entry in stored] == list(range(result.offset, result.offset + 20))
    assert [entry.tags for entry in stored] == [f"tag-{body}" for body in bodies]


def test_a_selector_keeps_each_key_in_one_queue_in_order(world):
    topic, producer = world.topic(), world.producer()
    for step in range(10):
        for key in range(4):
            result = stock.send_in_order(producer, stock.message(topic, f"{key}:{step}"), key)
            assert result.status == stock.SendStatus.OK
    stored = world.puller().read_all(topic)
    assert len(stored) == 40
    for key in range(4):
        mine = [entry for entry in stored if entry.body.startswith(f"{key}:")]
        assert len({entry.queue for entry in mine}) == 1, f"key {key} was spread: {mine}"
        assert [entry.body for entry in mine] == [f"{key}:{step}" for step in range(10)]


def test_oneway_sends_with_a_selector_arrive_in_order(world):
    topic, producer = world.topic(), world.connected_producer()
    for step in range(10):
        producer.send_oneway_orderly(stock.message(topic, f"step-{step}"), 1)
    eventually(lambda: sum(world.ends(topic).values()) >= 10, CALLBACK_S, lambda: f"{world.ends(topic)} of 10")
    stored = world.puller().read_all(topic)
    assert [entry.body for entry in stored] == [f"step-{step}" for step in range(10)]


def text_of(size, compressible):
    """Reproducible text of `size` characters."""
    if compressible:
        return ("gantry " * (size // 7 + 1))[:size]
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits, k=size))


@pytest.mark.parametrize("compressible", [True, False], ids=["compressible", "random"])
@pytest.mark.parametrize("size", [4096, 5000, 1 << 20], ids=["4KiB", "5000B", "1MiB"])
def test_big_bodies_come_back_unchanged(world, size, compressible):
    topic, producer = world.topic(), world.producer(max_bytes=4 << 20)
    body = text_of(size, compressible)
    assert producer.send_sync(stock.message(topic, body)).status == stock.SendStatus.OK
    (stored,) = world.puller().read_all(topic)
    assert hashlib.sha256(stored.body.encode()).digest() == hashlib.sha256(body.encode()).digest()


def test_big_bodies_reach_a_push_consumer(world):
    topic, producer = world.topic(), world.producer(max_bytes=4 << 20)
    _, recorder = world.consumer(world.name("group"), topic)
    bodies = {text_of(size, compressible) for size in (5000, 1 << 20) for compressible in (True, False)}
    for body in bodies:
        assert producer.send_sync(stock.message(topic, body)).status == stock.SendStatus.OK
    eventually(lambda: len(recorder.bodies) >= 4, 60, lambda: f"{len(recorder.bodies)} of 4 bodies")
    assert set(recorder.bodies) == bodies


def test_a_topic_is_created_by_its_first_message(world):
    topic, producer = world.name("auto"), world.producer()
    assert remoting.route(world.nodes[0]["namesrv"], topic) is None
    acks = {f"auto-{i}": producer.send_sync(stock.message(topic, f"auto-{i}")) for i in range(12)}
    assert all(ack.status == stock.SendStatus.OK for ack in acks.values())
    for node in world.nodes:
        eventually(lambda: remoting.route(node["namesrv"], topic), 10, f"a route at node {node['id']}")
    stored = world.puller().read_all(topic)
    assert sorted(entry.body for entry in stored) == sorted(acks)
    assert all(entry.offset == acks[entry.body].offset for entry in stored)


def test_an_illegal_topic_name_is_refused_and_the_producer_goes_on(world):
    topic, producer = world.topic(), world.producer()
    with pytest.raises(RocketMQException):
        producer.send_sync(stock.message("no spaces allowed", "lost"))
    assert producer.send_sync(stock.message(topic, "fine")).status == stock.SendStatus.OK
