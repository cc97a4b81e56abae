"""An S3 server in memory that holds the demo's files: `python s3.py [HOST [PORT]]`, until it is told to stop.

A folder of examples → s3://recap-demo, served. It is moto's server, which recap's tests run against: any credentials
will do, and all is forgotten at its end. Knows nothing of what runs against it.
"""

import logging
import signal
import sys

from moto.server import ThreadedMotoServer

from job.demo.story import BUCKET, demo_bucket, example_folder, upload


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; port 0 is a free one, and the first line printed names the address."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = ThreadedMotoServer(host, port, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    files = upload(demo_bucket(f"http://127.0.0.1:{port}"), example_folder())
    print(f"http://{host}:{port} serves s3://{BUCKET} with {files} files", flush=True)
    signal.sigwait(stop)
    server.stop()


if __name__ == "__main__":
    serve(
        sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1",
        int(sys.argv[2]) if len(sys.argv) > 2 else 9000,
    )
