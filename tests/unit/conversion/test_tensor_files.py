"""Our writer's files are read by the library, and the library's by our reader; what is broken is named."""

import itertools
import json
import resource
import struct
import threading
import weakref
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from megatron.basics.errors import UserError
from megatron.conversion import tensor_writer
from megatron.conversion.tensor_file import BrokenFile, TensorFile, bytes_of
from megatron.conversion.tensor_writer import AHEAD, PlannedTensor, plan_shards, write_files

DTYPES = ("float32", "bfloat16", "float16", "float64")
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def models(draw):
    """{name: tensor}, not empty."""
    count = draw(st.integers(1, 5))
    names = [f"layers.{number}.wéight" for number in range(count)]
    return {
        name: torch.randn(draw(SHAPES)).to(getattr(torch, draw(st.sampled_from(DTYPES)))).contiguous() for name in names
    }


def plan_of(tensors, dtype=None):
    return [
        PlannedTensor(name, dtype or str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]


@settings(deadline=None, max_examples=30)
@given(tensors=models(), max_bytes=st.integers(1, 300))
def test_the_library_reads_what_we_write(tensors, max_bytes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    planned = plan_of(tensors)
    parts = plan_shards(planned, max_bytes)
    assert [tensor for part in parts for tensor in part] == planned
    assert all(len(part) == 1 or sum(tensor.nbytes for tensor in part) <= max_bytes for part in parts)
    shards = {f"{number}.safetensors": part for number, part in enumerate(parts)}
    written = []
    checksums = write_files(folder, shards, tensors.values(), written.append, with_checksums=True)

    read = {}
    for name in shards:
        read |= load_file(folder / name)
    assert read.keys() == tensors.keys() == checksums.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
        assert checksums[name] == zlib.crc32(bytes_of(tensor))
    assert sum(written) == sum(tensor.nbytes for tensor in tensors.values())


@settings(deadline=None, max_examples=30)
@given(tensors=models())
def test_we_read_what_the_library_writes(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("read") / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    file = TensorFile(path)
    assert file.tensors.keys() == tensors.keys()
    assert file.data_size == sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        assert torch.equal(file.read(name), tensor) and file.read(name).dtype == tensor.dtype
        assert file.tensors[name].nbytes == tensor.nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_numbers_are_turned_on_the_way(dtype, tmp_path):
    tensor = torch.randn(1500, 1000)  # more than one block
    write_files(tmp_path, {"a.safetensors": plan_of({"w": tensor}, dtype)}, [tensor], lambda _: None)
    assert torch.equal(load_file(tmp_path / "a.safetensors")["w"], tensor.to(getattr(torch, dtype)))


@pytest.mark.parametrize(("number", "dtype", "wider"), [(7e4, "float16", "bfloat16"), (3.4e38, "bfloat16", "float32")])
def test_numbers_that_do_not_fit_are_refused_and_leave_no_file(number, dtype, wider, tmp_path):
    tensor = torch.tensor([1.0, number])
    with pytest.raises(UserError, match=f"--dtype {dtype} cannot hold the numbers of w; use --dtype {wider}"):
        write_files(tmp_path, {"a.safetensors": plan_of({"w": tensor}, dtype)}, [tensor], lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_infinity_itself_may_pass(tmp_path):
    tensor = torch.tensor([1.0, float("inf"), float("nan")])
    write_files(tmp_path, {"a.safetensors": plan_of({"w": tensor}, "float16")}, [tensor], lambda _: None)
    assert load_file(tmp_path / "a.safetensors")["w"].isfinite().tolist() == [True, False, False]


def test_blocks_are_made_a_few_ahead_and_no_more(tmp_path):
    made = []
    most = 0

    def make():
        nonlocal most
        for _ in range(40):
            tensor = torch.zeros(10)
            made.append(weakref.ref(tensor))
            most = max(most, sum(one() is not None for one in made))
            yield tensor

    planned = [PlannedTensor(str(number), "float32", (10,)) for number in range(40)]
    write_files(tmp_path, {"a.safetensors": planned}, make(), lambda _: None)
    assert 2 <= most <= AHEAD + 2


def test_large_blocks_do_not_wait_in_numbers(tmp_path, monkeypatch):
    """As matrices of GPT-2 come, which are turned, and therefore read many rows at a time."""
    monkeypatch.setattr(tensor_writer, "PART", 10)
    arrays = []  # a weak reference to a tensor is gone before its memory is
    most = 0

    def make():
        nonlocal most
        for number in range(12):
            array = np.full((8, 10), number, np.float32)
            arrays.append(weakref.ref(array))
            most = max(most, sum(one() is not None for one in arrays))
            yield torch.from_numpy(array)
            del array

    planned = [PlannedTensor(str(number), "float32", (8, 10)) for number in range(12)]
    write_files(tmp_path, {"a.safetensors": planned}, make(), lambda _: None)
    assert 2 <= most <= 3
    assert all((tensor == int(name)).all() for name, tensor in load_file(tmp_path / "a.safetensors").items())


def test_reading_takes_the_memory_of_one_tensor(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({str(number): torch.zeros(1 << 18) for number in range(8)}, path)
    file = TensorFile(path)
    before = resident_bytes()
    for name in file.tensors:
        assert file.read(name).sum() == 0
    assert resident_bytes() - before < 4 << 20


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def write_header(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},  # behind the end
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},  # of another size than its shape
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"w": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}},
        {"w": 3},
        [],
    ],
)
def test_headers_that_lie_are_refused(header, tmp_path):
    write_header(tmp_path / "a.safetensors", header, b"1234")
    with pytest.raises(BrokenFile, match="cannot be read"):
        TensorFile(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 40, b"PK\x03\x04" + b"0" * 60])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BrokenFile, match="cannot be read"):
        TensorFile(tmp_path / "a.safetensors")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BrokenFile, match="ends inside w"):
        file.read("w")


def test_a_box_is_what_slicing_gives(tmp_path):
    tensors = {"three": torch.randn(5, 4, 6), "two": torch.randn(7, 3).bfloat16(), "one": torch.randn(9)}
    save_file(tensors, tmp_path / "a.safetensors")
    file = TensorFile(tmp_path / "a.safetensors")
    for name, tensor in tensors.items():
        for box in itertools.product(*(itertools.combinations(range(size + 1), 2) for size in tensor.shape)):
            slices = tuple(slice(*edges) for edges in box)
            found = file.read_box(name, [first for first, _ in box], [last - first for first, last in box])
            assert torch.equal(found, tensor[slices]) and found.dtype == tensor.dtype
        assert file.checksum(name) == zlib.crc32(bytes_of(tensor))


def test_a_disk_that_takes_no_more_ends_the_reading_too(tmp_path):
    """By the limit that the system sets to files: the error of a full disk takes the same way."""
    made = []

    def blocks():
        for _ in range(1000):
            made.append(torch.zeros(1000))
            yield made[-1]

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    planned = [PlannedTensor(str(number), "float32", (1000,)) for number in range(1000)]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(UserError, match=r"a\.safetensors could not be written: the file is larger than"):
            write_files(tmp_path, {"a.safetensors": planned}, blocks(), lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [] and len(made) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
