"""A client of HTTP/2 that no library would be: it sends what it likes, reads only what it must, and never ends a call."""

import contextlib
import socket
import struct
import threading

DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FLIGHT = "/arrow.flight.protocol.FlightService/"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(call: str) -> bytes:
    """HPACK without its tables: each name and value in full."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": FLIGHT + call, ":authority": "127.0.0.1",
        "content-type": "application/grpc", "te": "trailers",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items()
    )


class Http2:
    """One connection. Its calls begin with odd numbers, 1 and up."""

    def __init__(self, port: int, timeout: float = 30, window: int = 1 << 16):
        """`window`: bytes of each answer that the server may send before it is read."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        settings = struct.pack(">HI", 4, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.windows = {0: 65535}
        self.initial = 65535
        self.ended = set()
        self.received = set()
        self.next_stream = 1

    def begin(self, *calls: str) -> list[int]:
        """Begins calls; their numbers."""
        streams = range(self.next_stream, self.next_stream + 2 * len(calls), 2)
        self.next_stream += 2 * len(calls)
        self.socket.sendall(
            b"".join(frame(HEADERS, END_HEADERS, s, header_block(call)) for s, call in zip(streams, calls))
        )
        return list(streams)

    def enlarge(self, count: int) -> None:
        """Lets the server send so many more bytes of all answers together before any is read."""
        self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", count)))

    def send(self, stream: int, data: bytes, chunk: int = 16384, end: bool = False) -> int:
        """Sends as much of `data` as the server lets within the timeout; how much that was. `end` ends the call's request."""
        sent = 0
        try:
            while sent < len(data):
                room = min(self.windows[0], self.windows.setdefault(stream, self.initial), chunk, len(data) - sent)
                if room <= 0:
                    self.read_frame()
                    if stream in self.ended:
                        break
                    continue
                last = end and sent + room == len(data)
                self.socket.sendall(frame(DATA, END_STREAM if last else 0, stream, data[sent:sent + room]))
                for window in (0, stream):
                    self.windows[window] -= room
                sent += room
        except (TimeoutError, ConnectionError):
            pass
        return sent

    def read_frame(self) -> None:
        """Reads one frame, and keeps what it says of windows."""
        head = self.read(9)
        length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
        payload = self.read(length)
        if kind == WINDOW_UPDATE:
            self.windows[stream] = self.windows.get(stream, self.initial) + int.from_bytes(payload)
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, length, 6):
                name, value = struct.unpack(">HI", payload[at:at + 6])
                if name == 4:
                    for s in self.windows.keys() - {0}:
                        self.windows[s] += value - self.initial
                    self.initial = value
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise ConnectionError("the server goes away")
        elif kind == DATA and length:
            self.received.add(stream)
        if kind in (DATA, HEADERS) and flags & END_STREAM or kind == 3:
            self.ended.add(stream)

    def read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return bytes(data)

    def keep_reading(self) -> None:
        """Takes what the server sends from now on, and never makes room for more. Only for one who sends no more himself."""

        def read():
            with contextlib.suppress(OSError):
                self.socket.settimeout(None)
                while True:
                    self.read_frame()

        threading.Thread(target=read, daemon=True).start()

    def close(self) -> None:
        self.socket.close()
