"""Delay levels, and messages that a push consumer of the C++ client hands back."""

import time

from cluster import eventually
from conftest import delivered
import stock

LEVEL_2_S = 5
FIRST_RETRY_S = 10


def test_a_message_comes_after_its_delay_level(world):
    topic, producer = world.topic(), world.producer()
    _, recorder = world.consumer(world.name("group"), topic)
    started = time.monotonic()
    late = stock.message(topic, "late", tags="A", note="kept")
    late.set_delay_time_level(2)
    for message in (late, stock.message(topic, "now")):
        assert producer.send_sync(message).status == stock.SendStatus.OK
    delivered(recorder, ["now"])
    delivered(recorder, ["late"])
    assert time.monotonic() - started >= LEVEL_2_S
    received = next(entry for entry in recorder.received if entry.body == "late")
    assert (received.tags, received.note) == ("A", "kept")
    assert sorted(recorder.bodies) == ["late", "now"]


def test_a_message_handed_back_comes_again(world):
    topic, producer = world.topic(), world.producer()
    attempts = world.reluctant_consumer(world.name("group"), topic, refusals=1)
    assert producer.send_sync(stock.message(topic, "hard")).status == stock.SendStatus.OK
    eventually(lambda: len(attempts) >= 2, 60, "the second attempt")
    (first, second) = attempts[:2]
    assert (first.body, first.times) == ("hard", 0)
    assert (second.body, second.times) == ("hard", 1)
    assert second.at - first.at >= FIRST_RETRY_S
