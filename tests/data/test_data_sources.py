"""The sources: IDX files, CIFAR-10's batches, downloads and archives, damaged ones too."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import socket
import struct
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.base.errors import DataError
from alexnet_lab.data import download, preparation_bar
from alexnet_lab.data.sources import cifar10, imagenette, mnist
from alexnet_lab.data.sources.digits import load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

RNG = np.random.default_rng(5)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def fake_mnist() -> dict[str, bytes]:
    files = {}
    for prefix, count in (("train", 20), ("t10k", 7)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a server on this machine gives its files out."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the server's own name
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


# IDX files


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_is_read(tmp_path, packed):
    array = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert np.array_equal(mnist.read_idx(path, 3), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(np.zeros((3, 4, 5), np.uint8))[:-1], "it has 75 bytes instead of 76"),
        (idx(np.zeros((3, 4, 5), np.uint8)) + b"x", "it has 77 bytes instead of 76"),
        (idx(np.zeros((3, 4, 5), np.uint8))[:7], "it has 7 bytes, its head alone takes 16"),
        (b"", "it has 0 bytes, its head alone takes 16"),
        (idx(np.zeros((60, 1), np.uint8)), "it starts with 00000802 instead of 00000803"),
        (b"<html>not found</html>", "it starts with 3c68746d instead of 00000803"),
    ],
)
def test_a_damaged_idx_file_is_reported_with_found_and_expected(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        mnist.read_idx(path, 3)
    assert str(caught.value) == f"{path} is a damaged IDX file: {message}; delete it, and it is downloaded again"


def test_a_truncated_gzip_file_is_reported(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(RNG.integers(0, 256, (9, 9, 9), dtype=np.uint8)))[:-50])
    with pytest.raises(DataError, match=r"\.gz is a damaged IDX file: it cannot be unpacked: "):
        mnist.read_idx(path, 3)


# MNIST


def write_mnist(raw: Path, files: dict[str, bytes], *, packed: bool) -> None:
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_torchvisions_layout(tmp_path, packed):
    files = fake_mnist()
    write_mnist(tmp_path / "raw", files, packed=packed)
    contents = mnist.load_mnist(tmp_path / "raw")
    assert contents.shape == (1, 28, 28)
    train, test = contents.parts["train"], contents.parts["test"]
    assert (len(train.labels), len(test.labels)) == (20, 7)
    assert train.read(19).tobytes() == files["train-images-idx3-ubyte"][-784:]
    assert train.labels.tolist() == [n % 10 for n in range(20)]


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    files = fake_mnist()
    files["train-labels-idx1-ubyte"] = files["t10k-labels-idx1-ubyte"]
    write_mnist(tmp_path / "raw", files, packed=False)
    with pytest.raises(
        DataError, match=r"the train files in .* are not MNIST's: images of shape \(20, 28, 28\), 7 lab"
    ):
        mnist.load_mnist(tmp_path / "raw")


def serve_mnist(served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    folder, address = served
    packed = {f"{name}.gz": gzip.compress(content) for name, content in fake_mnist().items()}
    for name, content in packed.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(mnist, "MIRRORS", [address])
    monkeypatch.setattr(mnist, "CHECKSUMS", {name: md5(content) for name, content in packed.items()})
    return packed


def test_mnist_is_downloaded_where_torchvision_looks_for_it(served, tmp_path, monkeypatch):
    packed = serve_mnist(served, monkeypatch)
    contents = mnist.load_mnist(tmp_path / "MNIST" / "raw")
    assert len(contents.parts["train"].labels) == 20
    assert {file.name: file.read_bytes() for file in (tmp_path / "MNIST" / "raw").iterdir()} == packed


def test_the_next_mirror_is_asked_when_one_gives_another_file(served, tmp_path, monkeypatch):
    serve_mnist(served, monkeypatch)
    folder, address = served
    (folder / "bad").mkdir()
    for name in mnist.CHECKSUMS:
        (folder / "bad" / name).write_bytes(b"tampered")
    monkeypatch.setattr(mnist, "MIRRORS", [f"{address}none/", f"{address}bad/", address])
    assert len(mnist.load_mnist(tmp_path / "raw").parts["test"].labels) == 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH-2.0-OpenSSH_9"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nab", "invalid literal"),
    ],
)
def test_the_next_mirror_is_asked_when_one_breaks_off(answer, reason, served, tmp_path):
    folder, address = served
    (folder / "file").write_bytes(b"content")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        broken = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        download.fetch([broken, f"{address}file"], tmp_path / "copy", md5(b"content"), "advice")
        with pytest.raises(DataError, match=rf"copy2 could not be downloaded \({broken}: .*{reason}.*\): advice"):
            download.fetch([broken], tmp_path / "copy2", md5(b"content"), "advice")
        thread.join()
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(served, tmp_path, monkeypatch):
    serve_mnist(served, monkeypatch)
    folder, _ = served
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"tampered")
    with pytest.raises(DataError) as caught:
        mnist.load_mnist(tmp_path / "raw")
    message = str(caught.value)
    assert f"MD5 {md5(b'tampered')} instead of {mnist.CHECKSUMS['train-images-idx3-ubyte.gz']}" in message
    assert "put MNIST's four files (train-images-idx3-ubyte[.gz] among them) into" in message
    assert "data=digits, which needs nothing" in message
    assert list((tmp_path / "raw").iterdir()) == []


def test_without_a_net_the_advice_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"could not be downloaded \(http://127\.0\.0\.1:9/.*refused\): put MNIST's"):
        mnist.load_mnist(tmp_path / "raw")


def test_download_of_unknown_size_is_logged_without_a_time_left(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "alexnet_lab")
    monkeypatch.setattr(preparation_bar, "LOG_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\ncontent")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        download.fetch([address], tmp_path / "copy", md5(b"content"), "advice")
        thread.join()
    assert " file: 7 of ?, " in caplog.text
    assert "/s, unknown time left" in caplog.text


def test_only_web_addresses_are_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(DataError, match="no web address"):
        download.fetch([f"file://{tmp_path}/secret"], tmp_path / "copy", md5(b"secret"), "advice")


# CIFAR-10


def batch_bytes(count: int, first: int = 0) -> bytes:
    data = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
    return pickle.dumps({b"data": data, b"labels": [(first + n) % 10 for n in range(count)]}, protocol=4)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Contents of small files with the official names; their checksums are taken for the published ones."""
    files = {name: batch_bytes(4, first) for first, name in enumerate(cifar10.TRAIN_CHECKSUMS)}
    test = {"test_batch": batch_bytes(6)}
    monkeypatch.setattr(cifar10, "TRAIN_CHECKSUMS", {name: md5(content) for name, content in files.items()})
    monkeypatch.setattr(cifar10, "TEST_CHECKSUMS", {name: md5(content) for name, content in test.items()})
    return files | test


def write_batches(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_official_batches_are_read_in_order(tmp_path, batches):
    write_batches(tmp_path / "cifar-10-batches-py", batches)
    contents = cifar10.load_cifar10(tmp_path)
    train = contents.parts["train"]
    third = pickle.loads(batches["data_batch_3"])
    assert len(train.labels) == 20
    assert np.array_equal(train.read(9), third[b"data"][1].reshape(3, 32, 32))
    assert train.labels[8:12].tolist() == third[b"labels"]
    assert len(contents.parts["test"].labels) == 6
    assert contents.class_names == [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]


class Evil:
    """What must never be unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (Path("pwned"), "pwned")


def test_a_batch_with_another_checksum_is_never_unpickled(tmp_path, batches, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_batches(tmp_path / "cifar-10-batches-py", batches | {"data_batch_2": pickle.dumps(Evil())})
    with pytest.raises(DataError, match=r"data_batch_2 is not the official file \(MD5 .* instead of .*\); delete "):
        cifar10.load_cifar10(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_even_with_the_right_checksum_nothing_foreign_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Evil())
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match=r"batch is no CIFAR-10 batch: it names .*, which no CIFAR-10 file does"):
        cifar10.read_batch_file(tmp_path / "batch", md5(content))
    assert not (tmp_path / "pwned").exists()


def test_a_missing_batch_is_reported(tmp_path, batches):
    del batches["data_batch_4"]
    write_batches(tmp_path / "cifar-10-batches-py", batches)
    with pytest.raises(DataError, match=r"data_batch_4 is not the official file \(MD5 missing instead of"):
        cifar10.load_cifar10(tmp_path)


def test_a_batch_without_labels_is_reported(tmp_path):
    content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)})
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="batch is no CIFAR-10 batch: b'labels'"):
        cifar10.read_batch_file(tmp_path / "batch", md5(content))


def write_copy(root: Path, names: list[str], parts: tuple[str, ...] = ("train", "test"), ending: str = "png") -> None:
    for part in parts:
        for label, name in enumerate(names):
            folder = root / part / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (label * 20, 0, 0)).save(folder / f"0000.{ending}")


def test_a_copy_in_folders_is_read_with_the_official_labels(tmp_path):
    write_copy(tmp_path / "cifar10", cifar10.NAMES)
    contents = cifar10.load_cifar10(tmp_path)
    for part in contents.parts.values():
        assert part.labels.tolist() == list(range(10))
        assert [int(part.read(n)[0, 0, 0]) for n in range(10)] == [20 * n for n in range(10)]


def test_the_official_batches_come_before_a_copy(tmp_path, batches):
    write_batches(tmp_path / "cifar-10-batches-py", batches)
    write_copy(tmp_path / "cifar10", cifar10.NAMES)
    assert cifar10.load_cifar10(tmp_path).source.endswith("cifar-10-batches-py")


def test_a_copy_with_other_classes_is_refused(tmp_path):
    write_copy(tmp_path / "cifar10", [*cifar10.NAMES[:9], "lorry"])
    with pytest.raises(
        DataError, match="is no copy of CIFAR-10: its classes differ in lorry, truck; the ten are airpl"
    ):
        cifar10.load_cifar10(tmp_path)


def test_a_copy_without_test_set_is_refused(tmp_path):
    write_copy(tmp_path / "cifar10", cifar10.NAMES, parts=("train",))
    with pytest.raises(DataError, match=r"there is no folder .*test: a copy of CIFAR-10 needs its test set too"):
        cifar10.load_cifar10(tmp_path)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar10_is_downloaded_and_unpacked(served, tmp_path, batches, monkeypatch):
    folder, address = served
    content = archive_of({f"cifar-10-batches-py/{name}": data for name, data in batches.items()})
    (folder / "cifar-10-python.tar.gz").write_bytes(content)
    monkeypatch.setattr(cifar10, "URLS", [f"{address}cifar-10-python.tar.gz"])
    monkeypatch.setattr(cifar10, "ARCHIVE_CHECKSUM", md5(content))
    contents = cifar10.load_cifar10(tmp_path / "data")
    assert len(contents.parts["train"].labels) == 20
    assert sorted(file.name for file in (tmp_path / "data" / "cifar-10-batches-py").iterdir()) == sorted(batches)


def test_without_a_net_cifar10_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URLS", ["http://127.0.0.1:9/cifar-10-python.tar.gz"])
    with pytest.raises(DataError) as caught:
        cifar10.load_cifar10(tmp_path)
    assert str(caught.value).endswith(
        f"put the folder cifar-10-batches-py, or images as cifar10/{{train,test}}/<class>/*.png, into {tmp_path}, "
        f"or use data=digits, which needs nothing"
    )


# Archives


def test_an_archive_cannot_leave_its_folder(tmp_path):
    (tmp_path / "a.tar").write_bytes(archive_of({"inner/ok": b"1", "../../escaped": b"2"}))
    with pytest.raises(DataError, match=r"a\.tar cannot be unpacked \(.*outside the destination"):
        download.unpack(tmp_path / "a.tar", "inner", tmp_path / "data" / "target")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a.tar", "data"]


def test_a_truncated_archive_is_reported_and_leaves_nothing(tmp_path):
    (tmp_path / "a.tgz").write_bytes(archive_of({"inner/ok": RNG.bytes(5000)})[:2000])
    with pytest.raises(DataError, match=r"a\.tgz cannot be unpacked \(.*\); delete it, and it is downloaded again"):
        download.unpack(tmp_path / "a.tgz", "inner", tmp_path / "target")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tgz"]


def test_an_archive_of_something_else_is_reported(tmp_path):
    (tmp_path / "a.tgz").write_bytes(archive_of({"other/ok": b"1"}))
    with pytest.raises(DataError, match=r"a\.tgz holds no folder inner; delete it"):
        download.unpack(tmp_path / "a.tgz", "inner", tmp_path / "target")


def test_imagenette_is_downloaded_if_there_is_nothing(served, tmp_path, monkeypatch):
    folder, address = served
    files = {f"imagenette2-320/{part}/{wnid}/0.JPEG": b"x" for part in ("train", "val") for wnid in imagenette.NAMES}
    content = archive_of(files)
    (folder / "imagenette2-320.tgz").write_bytes(content)
    monkeypatch.setattr(imagenette, "URLS", [f"{address}imagenette2-320.tgz"])
    monkeypatch.setattr(imagenette, "ARCHIVE_CHECKSUM", md5(content))
    imagenette.fetch_imagenette(tmp_path / "imagenette")
    assert len(list((tmp_path / "imagenette").glob("*/*/0.JPEG"))) == 20


def test_imagenette_without_a_net_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenette, "URLS", ["http://127.0.0.1:9/imagenette2-320.tgz"])
    with pytest.raises(DataError, match=r"put the images into .*imagenette/train/<wnid>/\*\.JPEG, or use data=digits"):
        imagenette.fetch_imagenette(tmp_path / "imagenette")


# Digits


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits as reference

    images, labels = reference(return_X_y=True)
    part = load_digits().parts["train"]
    assert len(part.labels) == 1797
    assert part.labels.tolist() == labels.tolist()
    for number in (0, 500, 1796):
        expected = [round(level * 255 / 16) for level in images[number]]
        assert part.read(number).flatten().tolist() == expected
