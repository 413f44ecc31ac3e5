"""Send with the C++ client and print what became of each message, one JSON object a line.

    python history.py NAMESRV TOPIC TASKS FIRST_ID PAUSE_MS

`{"begin": ns, "by": "cpp0", "id": 7, "crc": 1}` before a send, then `{"end": ns, "by": "cpp0", "id": 7, "offset": 12}`; `offset` is
null when the outcome is unknown. Times are of CLOCK_MONOTONIC. A body begins with its id in 16 hex digits. Ends when standard
input does. The C++ client does not tell the queue of an ack: whoever reads this finds it by the id.
"""

import json
import sys
import threading
import time
import zlib

import stock

IDS_OF_A_TASK = 1 << 24


class Printer:
    """Whole lines, in the order of time."""

    def __init__(self):
        self._lock = threading.Lock()

    def line(self, kind, **fields):
        """Print an event; its time is taken while nobody else can print."""
        with self._lock:
            print(json.dumps({kind: time.monotonic_ns(), **fields}), flush=True)


def send(printer, stopping, producer, topic, task, first_id, pause_s):
    """Send one message after the other."""
    by, number = f"cpp{task}", first_id + task * IDS_OF_A_TASK
    while not stopping.wait(pause_s):
        number += 1
        body = f"{number:016x}-{by}-{'x' * (number % 200)}"
        printer.line("begin", by=by, id=number, crc=zlib.crc32(body.encode()))
        offset = None
        try:
            result = producer.send_sync(stock.message(topic, body))
            if result.status == stock.SendStatus.OK:
                offset = result.offset
        except stock.RocketMQException as error:
            print(f"{by}: {error}", file=sys.stderr, flush=True)
        printer.line("end", by=by, id=number, offset=offset)


def main():
    """Start the senders, and end them with standard input."""
    namesrv, topic, tasks, first_id, pause_ms = sys.argv[1:]
    printer, stopping = Printer(), threading.Event()
    threads = []
    for task in range(int(tasks)):
        producer = stock.producer(namesrv, f"{topic}-stock-{task}", instance=f"history-{task}")
        arguments = (printer, stopping, producer, topic, task, int(first_id), int(pause_ms) / 1000)
        threads.append(threading.Thread(target=send, args=arguments))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
