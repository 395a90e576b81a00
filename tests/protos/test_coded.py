"""Coded files: bit for bit what was encoded, and about as short as it can be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.protos.coded import CodedError, decode, decode_file, encode
from flyweight.protos.coded.encoding import encode_arrays
from flyweight.protos.coded.payloads import find_payloads

onnx = pytest.importorskip("onnx")


def model_of(*arrays: np.ndarray) -> bytes:
    from onnx import helper, numpy_helper

    values = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy"]
    weights = [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(arrays)]
    node = helper.make_node("Identity", ["x"], ["y"])
    return helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:], weights)
    ).SerializeToString()


def sparse(shape: tuple[int, ...], share: float, entries: int, seed: int = 0) -> np.ndarray:
    """Floats, a `share` of them from a codebook and the others zero."""
    random = np.random.default_rng(seed)
    book = random.normal(size=entries).astype(np.float32)
    return np.where(random.random(shape) < share, book[random.integers(0, entries, shape)], np.float32(0))


@given(
    dtype=st.sampled_from(["f4", "f2", "f8", "i1", "u1", "i4", "i8", "?"]),
    shape=st.sampled_from([(70,), (8, 80), (3, 5, 7, 9), (64, 64), (2, 3000), (0, 4), ()]),
    entries=st.sampled_from([1, 2, 15, 300, 100_000]),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=150)
def test_what_is_decoded_is_what_was_encoded(
    dtype: str, shape: tuple[int, ...], entries: int, share: float, seed: int
) -> None:
    content = model_of((100 * np.asarray(sparse(shape, share, entries, seed))).astype(dtype))
    assert decode(encode(content)) == content


@given(st.binary(max_size=400))
def test_any_bytes_come_back(content: bytes) -> None:
    assert decode(encode(content)) == content


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0, 1e-42])
def test_every_bit_of_a_float_is_kept(value: float) -> None:
    weights = sparse((50, 50), 0.3, 9)
    weights[::7] = value
    content = model_of(weights)
    assert decode(encode(content)) == content


@pytest.mark.parametrize("name", ["light_bvlc_alexnet", "light_resnet50", "light_shufflenet"])
def test_real_files_come_back(name: str) -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    content = (folder / f"{name}.onnx").read_bytes()
    coded = encode(content)
    assert decode(coded) == content
    assert len(coded) < len(content)


@pytest.mark.parametrize(
    ("share", "entries", "shape"),
    [(0.04, 15, (300, 784)), (0.5, 15, (1000, 500)), (1.0, 16, (1000, 500)), (0.002, 7, (1000, 500))],
)
def test_a_file_is_little_longer_than_the_entropy_of_its_weights(
    share: float, entries: int, shape: tuple[int, int]
) -> None:
    weights = sparse(shape, share, entries)
    marked, count = int(np.count_nonzero(weights)), weights.size
    p = marked / count
    places = 0.0 if p == 1 else -count * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
    ideal = (places + marked * np.log2(entries)) / 8
    # 250 bytes: header 82, graph 120, lanes and tables.
    assert len(encode(model_of(weights))) < ideal * 1.02 + 250


def test_rows_and_columns_of_different_density_are_told_apart() -> None:
    """Half of the columns hold four fifths of the weights: knowing which saves (p1 + p2) / 2 -> p each."""
    random = np.random.default_rng(0)
    even = (random.random((400, 600)) < 0.10).astype(np.float32)
    uneven = np.concatenate(
        [random.random((400, 300)) < 0.16, random.random((400, 300)) < 0.04], axis=1
    ).astype(np.float32)
    assert len(encode(model_of(uneven))) < 0.95 * len(encode(model_of(even)))


def test_tensors_with_the_same_values_share_one_codebook() -> None:
    weights = [sparse((60, 60), 0.3, 15, seed=0) for _ in range(3)]
    content = model_of(*weights)
    assert len(encode_arrays(content, find_payloads(content)).plan.codebooks) == 1


def test_int8_weights_take_what_their_distribution_does() -> None:
    weights = np.random.default_rng(0).normal(0, 12, (500, 500)).round().astype(np.int8)
    # The entropy of a normal distribution: log2(sigma sqrt(2 pi e)) = 5.63 bits of 8.
    assert len(encode(model_of(weights))) < 250_000 * 5.65 / 8 + 600


def test_plain_floats_become_shorter_by_their_exponents() -> None:
    weights = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    coded = encode(model_of(weights))
    assert len(coded) < 0.87 * weights.nbytes


def test_weights_in_attributes_and_subgraphs_are_found() -> None:
    from onnx import helper, numpy_helper

    weights = sparse((40, 40), 0.2, 7)
    tensor = numpy_helper.from_array(weights, "w")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, None)], [tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    values = [helper.make_tensor_value_info("x", 9, []), helper.make_tensor_value_info("y", 1, None)]
    content = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])).SerializeToString()
    payloads = find_payloads(content)
    assert [(payload.length, payload.item_bytes, payload.shape) for payload in payloads] == [
        (6400, 4, (40, 40))
    ] * 4
    assert decode(encode(content)) == content


def test_floats_that_are_not_raw_bytes_are_found_too() -> None:
    from onnx import TensorProto, helper

    tensor = helper.make_tensor("w", TensorProto.FLOAT, [100], [0.5] * 100)
    assert tensor.float_data
    content = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    assert [payload.length for payload in find_payloads(content)] == [400]


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.fw"
    path.write_bytes(encode(b"content"))
    assert decode_file(path) == b"content"
    path.write_bytes(b"nonsense")
    with pytest.raises(CodedError, match=r"model\.onnx\.fw cannot be decoded: it is not a coded file; "):
        decode_file(path)
    with pytest.raises(CodedError, match=r"other\.fw cannot be read \(No such file or directory\)"):
        decode_file(tmp_path / "other.fw")


def test_a_file_of_version_one_is_read_for_ever() -> None:
    """Written by the first release; whoever changes the format gives it another number."""
    coded = bytes.fromhex(FIRST_VERSION)
    graph = onnx.load_from_string(bytes(decode(coded))).graph
    first, second = (onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer)
    assert np.array_equal(first, sparse((12, 30), 0.2, 3))
    assert second.tolist() == list(range(40))


def test_decoding_needs_neither_onnx_nor_protobuf() -> None:
    code = (
        "import sys, flyweight.protos.coded as coded; coded.decode(coded.encode(b'x'));"
        "print([name for name in ('onnx', 'google.protobuf', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FIRST_VERSION = (
    "8946570d0a1a0a010201a806000000000000d8290a01760647dc55d1e1f5790bb7ecdd662a11313a088feedf0cda6e24"
    "8db6ef00000068000000000000007e00000055000000000000007c00000000000000e000ee00765d0001013682537ad1"
    "c60b21dd77a3a7bc78e3ca5f636673408c5da9eaba41ad83f4c72aceefc822f959270edf5e0a98ff39e6ea84ef41391a"
    "a98b399838eaf84030c0a7f88eab1611937d26a8cd598612cbb83edfbcdf848541543fdb07eb74f9b93ba8dde91528a1"
    "5d3a85a912e871a742ad89c8a2860000e3e0b39acfcb25c0c55821c458a9c4e199929a5792595229c498aeb5969b8387"
    "434e80d189a9dcc06b01b7d66a460e0d30cfd06b01639408480b3f172f07a3102717b310631e1713074b1250b41243d4"
    "8949400600f7b99b1eaa080000dde5d56d01000000988074b7aa530000556aa6b7aa530000818a637887050000d6e4f6"
    "967f060000314dbe0602000000591622440237900547953a55a1c4b9e76204892d7869fc95fddb7b35f62a1c99efc7b1"
    "b18dfe3fc7d3641da749bb8d5fddc4ad49c31b9a02ece0a4b8f5329bb8ae881884"
)
