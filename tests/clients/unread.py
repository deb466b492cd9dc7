"""Results that nobody reads."""

import time

import pyarrow.flight

from http2 import Http2
from messages import encode


def statement(sql: str) -> bytes:
    """CommandStatementQuery."""
    return encode({1: "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery", 2: encode({1: sql})})


class Unread:
    """Results that are begun and not read, on a few connections of which none runs out of room for the others."""

    def __init__(self, server, sql: str, count: int, connections: int = 8):
        with server.flight() as client:
            descriptor = pyarrow.flight.FlightDescriptor.for_command(statement(sql))
            ticket = encode({1: client.get_flight_info(descriptor).endpoints[0].ticket.ticket})
        self.count = count
        message = b"\0" + len(ticket).to_bytes(4) + ticket
        self.connections = [Http2(server.port) for _ in range(connections)]
        for i, connection in enumerate(self.connections):
            share = count // connections + (i < count % connections)
            # Room for what each of them may send before it is read.
            connection.enlarge(share << 16)
            for stream in connection.begin(*["DoGet"] * share):
                connection.send(stream, message, end=True)
            connection.keep_reading()

    def wait(self, timeout: float = 60) -> None:
        """Until all have sent rows, or have ended without."""
        end = time.monotonic() + timeout
        while self.begun() + self.refused() < self.count and time.monotonic() < end:
            time.sleep(0.1)

    def refused(self) -> int:
        """How many have ended without rows."""
        return sum(len(connection.ended - connection.received) for connection in self.connections)

    def begun(self) -> int:
        """How many have sent rows."""
        return sum(len(connection.received) for connection in self.connections)

    def close(self):
        for connection in self.connections:
            connection.close()
