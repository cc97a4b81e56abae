"""An S3 server in memory with the demo's files: `python s3.py [HOST [PORT]]`.

It serves the folder of examples as s3://recap-demo until SIGTERM. It is moto's server, which
recap's tests use: any credentials are valid, and everything is lost at its end.
"""

import logging
import signal
import sys

from moto.server import ThreadedMotoServer

from job.demo.story import BUCKET, demo_bucket, example_folder, upload


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Port 0 takes a free one; the first line has the address."""
    # Otherwise it logs each request.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
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
