"""A service that does nothing but answer /readyz: for tests of the stack itself."""

import asyncio
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncpg


class Health(BaseHTTPRequestHandler):
    """Answers every GET with a health document."""

    def do_GET(self) -> None:
        health = {
            "service": "stub",
            "role": sys.argv[1],
            "version": "0",
            "ok": True,
            "lag": {"stub": 0},
            "outbox_depth": 0,
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(health).encode())


async def migrate() -> None:
    """Create one table, as the owner."""
    connection = await asyncpg.connect(os.environ["MIGRATIONS_DSN"])
    await connection.execute("CREATE TABLE migrated (id int)")
    await connection.close()


def main() -> None:
    """Migrate, or serve until SIGTERM."""
    if sys.argv[1] == "migrate":
        asyncio.run(migrate())
        return
    if "STUB_FAILS" in os.environ:
        sys.exit("the stub was told to fail")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    ThreadingHTTPServer((os.environ["HEALTH_HOST"], int(os.environ["HEALTH_PORT"])), Health).serve_forever()


if __name__ == "__main__":
    main()
