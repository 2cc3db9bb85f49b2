"""A web page of a test's own that keeps what is sent to it, and a notification block of Prefect that sends to it."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.servers import Prefect

BLOCK = "custom-webhook/kept"


@contextlib.contextmanager
def notifications(server: Prefect) -> Iterator[list[str]]:
    """The messages that the server sends through BLOCK, as they come: subject and body in one line."""
    kept: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.append(f"{message['subject']}: {message['body']}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    page = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    block = CustomWebhookNotificationBlock(
        name="kept",
        url=f"http://127.0.0.1:{page.server_port}",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    )
    with temporary_settings({PREFECT_API_URL: server.address}):
        block.save("kept", overwrite=True)  # pyright: ignore[reportUnusedCoroutine]
    try:
        yield kept
    finally:
        page.shutdown()
        page.server_close()
