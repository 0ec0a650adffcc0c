"""Clients of GET /v1/events, many in one process: counts what arrives, and says it on one line when its input ends.

Arguments: port of the gateway, clients, queues. Client N follows queue-N. Each comes from an address of its own in 127.1.0.0/16, as
clients do, since a gateway lets one address hold only so many streams.
"""

import selectors
import socket
import sys

CHUNK_BYTES = 1 << 16


def follow(port, number, queues):
    stream = socket.create_connection(("127.0.0.1", port), 30, source_address=(f"127.1.{number // 250}.{number % 250 + 1}", 0))
    request = f"GET /v1/events?queue=queue-{number % queues} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
    stream.sendall(request.encode())
    head = stream.recv(CHUNK_BYTES)
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"client {number}: {head[:300]!r}")
    stream.setblocking(False)
    return stream


def main():
    port, clients, queues = map(int, sys.argv[1:])
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for number in range(clients):
        selector.register(follow(port, number, queues), selectors.EVENT_READ)
    print("all follow", flush=True)
    events = ended = 0
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                print(events, ended, flush=True)
                return
            chunk = key.fileobj.recv(CHUNK_BYTES)
            events += chunk.count(b"\nevent:") + chunk.startswith(b"event:")
            if not chunk:
                ended += 1
                selector.unregister(key.fileobj)


main()
