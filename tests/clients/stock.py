"""The stock C++ client through its Python binding, with what the binding leaves out.

The binding's own pull loop forgets where it is whenever a queue is empty and hides the broker name, so reading at
a given queue and offset goes through the same library functions that the binding declares.
"""

import ctypes
import threading
import time
from collections import namedtuple

from rocketmq.client import Message, Producer, PullConsumer, PushConsumer, RecvMessage, SendStatus, dll
from rocketmq.exceptions import RocketMQException, ffi_check
from rocketmq.ffi import MessageModel, _CConsumeStatus, _CMessageQueue, _CPullStatus

from cluster import eventually

__all__ = ["Message", "MessageModel", "Puller", "Queue", "Received", "Recorder", "SendStatus", "dll"]
__all__ += ["consumer", "message", "producer", "reluctant_consumer", "send_in_order"]

Queue = namedtuple("Queue", "broker queue_id")
Received = namedtuple("Received", "body tags keys queue offset msg_id note born")
Attempt = namedtuple("Attempt", "body times at")
Pulled = namedtuple("Pulled", "status messages next_offset")

FOUND = _CPullStatus.FOUND
NO_NEW_MESSAGE = _CPullStatus.NO_NEW_MSG
NO_MATCH = _CPullStatus.NO_MATCHED_MSG
OFFSET_ILLEGAL = _CPullStatus.OFFSET_ILLEGAL
TIMED_OUT = _CPullStatus.BROKER_TIMEOUT

ANSWER_S = 60


def message(topic, body, tags=None, keys=None, note=None):
    """A message with text body; `note` travels as a user property."""
    made = Message(topic)
    made.set_body(body)
    if tags:
        made.set_tags(tags)
    if keys:
        made.set_keys(keys)
    if note:
        made.set_property("note", note)
    return made


def producer(namesrv, group, max_bytes=None, instance=None):
    """A started producer with the client's defaults (3 s timeout, 5 tries).

    Clients of one process share their connections unless they have an `instance` name of their own.
    """
    made = Producer(group, max_message_size=max_bytes)
    made.set_namesrv_addr(namesrv)
    if instance:
        ffi_check(dll.SetProducerInstanceName(made._handle, instance.encode()))
    made.start()
    return made


def send_in_order(producing, made, key, tries=5):
    """Send to the queue that `key` selects and to no other.

    The client gives up on a connection at once when its own heartbeat thread is busy with it, and its built-in
    retry then takes another queue. So that retry is switched off, and the same queue is tried again here.
    """
    for left in reversed(range(tries)):
        try:
            return producing.send_orderly(made, key, retry_times=0)
        except RocketMQException:
            if left == 0:
                raise


def copied(received, queue):
    """Everything of a received message, copied out of the library's memory."""

    def text(value):
        return value.decode() if value else ""

    return Received(
        text(received.body), text(received.tags), text(received.keys), queue, received.queue_offset,
        received.id, text(received.get_property("note")), received.born_timestamp,
    )


class Recorder:
    """Collects what a push consumer is given."""

    def __init__(self):
        self._lock = threading.Lock()
        self._received = []

    def __call__(self, received):
        copy = copied(received, Queue(None, received.queue_id))
        with self._lock:
            self._received.append(copy)

    @property
    def received(self):
        """A copy of everything so far, in order of arrival."""
        with self._lock:
            return list(self._received)

    @property
    def bodies(self):
        """The bodies so far, in order of arrival."""
        return [entry.body for entry in self.received]


def consumer(namesrv, group, topic, instance, expression="*", **options):
    """A started push consumer and the recorder behind it. `instance` must differ within one process."""
    recorder = Recorder()
    made = PushConsumer(group, **options)
    made.set_namesrv_addr(namesrv)
    made.set_instance_name(instance)
    made.subscribe(topic, recorder, expression)
    made.start()
    return made, recorder


def reluctant_consumer(namesrv, group, topic, instance, refusals):
    """A started push consumer that hands each message back `refusals` times, and the attempts it made.

    The binding cannot hand a message back: it raises into the library, which takes that for a success.
    """
    attempts = []

    def on_message(_, handle):
        received = RecvMessage(handle)
        attempts.append(Attempt(received.body.decode(), received.reconsume_times, time.monotonic()))
        refuses = received.reconsume_times < refusals
        return (_CConsumeStatus.RECONSUME_LATER if refuses else _CConsumeStatus.CONSUME_SUCCESS).value

    made = PushConsumer(group)
    made.set_namesrv_addr(namesrv)
    made.set_instance_name(instance)
    ffi_check(dll.Subscribe(made._handle, topic.encode(), b"*"))
    made._register_callback(on_message)
    made.start()
    return made, attempts


class Puller:
    """A pull consumer that reads given queues at given offsets."""

    def __init__(self, namesrv, group):
        self._consumer = PullConsumer(group)
        self._consumer.set_namesrv_addr(namesrv)
        self._consumer.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._consumer.shutdown()

    def queues(self, topic):
        """All queues that the topic's route offers for reading."""
        found = ctypes.POINTER(_CMessageQueue)()
        size = ctypes.c_int()
        ffi_check(
            dll.FetchSubscriptionMessageQueues(
                self._consumer._handle, topic.encode(), ctypes.pointer(found), ctypes.pointer(size)
            )
        )
        queues = [Queue(found[i].brokerName.decode(), found[i].queueId) for i in range(size.value)]
        ffi_check(dll.ReleaseSubscriptionMessageQueue(found))
        return sorted(queues)

    def pull(self, topic, queue, offset, expression="*", count=32):
        """One pull. The library leaves `next_offset` at 0 unless messages were found.

        It reports a time-out at once while its heartbeat thread connects to the same address; such a pull never
        left the client and is made again.
        """

        def answered():
            pulled = self._pull_once(topic, queue, offset, expression, count)
            return pulled if pulled.status != TIMED_OUT else None

        return eventually(answered, ANSWER_S, f"an answer to the pull of {topic} {queue} at {offset}")

    def _pull_once(self, topic, queue, offset, expression, count):
        asked = _CMessageQueue(topic.encode(), queue.broker.encode(), queue.queue_id)
        result = dll.Pull(
            self._consumer._handle, ctypes.pointer(asked), expression.encode(), ctypes.c_longlong(offset), count
        )
        messages = []
        if result.pullStatus == FOUND:
            messages = [copied(RecvMessage(result.msgFoundList[i]), queue) for i in range(result.size)]
        pulled = Pulled(_CPullStatus(result.pullStatus), messages, result.nextBeginOffset)
        dll.ReleasePullResult(result)
        return pulled

    def read(self, topic, queue, offset=0, expression="*"):
        """Every message of one queue from `offset` to its end."""
        messages = []
        while True:
            pulled = self.pull(topic, queue, offset, expression)
            if pulled.status == FOUND:
                messages += pulled.messages
                offset = pulled.next_offset
            else:
                assert pulled.status in (NO_NEW_MESSAGE, NO_MATCH), f"{topic} {queue} at {offset}: {pulled.status}"
                return messages

    def read_all(self, topic, expression="*"):
        """Every message of every queue."""
        return [entry for queue in self.queues(topic) for entry in self.read(topic, queue, 0, expression)]
