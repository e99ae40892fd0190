"""Hostile files: each is refused in one line, nothing in it runs, and memory stays bounded."""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from openai_layout import open_clip_config, random_weights, write_tokenizer
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.formats.isolated import read_index
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.torch_file import limit

WEIGHTS = random_weights()
ROOT = Path(__file__).parents[3]


class Payload:
    """Unpickling it runs a command that creates the file `ran`."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.system, (f"touch {self.place / 'ran'}",)


@pytest.fixture
def bomb(tmp_path):
    """A payload that works, as is shown by unpickling it once."""
    pickle.loads(pickle.dumps(Payload(tmp_path)))
    (tmp_path / "ran").unlink()
    return Payload(tmp_path)


def refusal(path):
    """The one line with which a source is refused."""
    with pytest.raises(RvptError) as raised:
        load_clip(path)
    line = str(raised.value)
    assert "\n" not in line
    assert not (path.parent / "ran").exists()
    return line


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    """A zip archive of these members; a list may have a name twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, body in members:
            target.writestr(name, body)
    return file.getvalue()


def members(value):
    with zipfile.ZipFile(io.BytesIO(saved(value))) as source:
        return [(name, source.read(name)) for name in source.namelist()]


def with_pickle(body):
    """The archive of WEIGHTS with another pickle."""
    return archive([(name, body if name.endswith("data.pkl") else old) for name, old in members(WEIGHTS)])


def pickled(*instructions):
    return b"\x80\x02" + b"".join(instructions) + b"."


# Pickles that run code


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_a_payload_is_named_and_does_not_run(tmp_path, bomb, suffix, old):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(saved({"state_dict": WEIGHTS, "x": bomb}, _use_new_zipfile_serialization=not old))
    assert "its pickle names posix.system, which is not part of a model's weights; nothing was run" in refusal(path)


@pytest.mark.parametrize(
    ("instructions", "words"),
    [
        ([b"cbuiltins\neval\n"], "names builtins.eval"),
        ([b"c__builtin__\nexec\n"], "names __builtin__.exec"),
        ([b"ctorch\nload\n"], "names torch.load"),
        ([b"cpickle\nloads\n"], "names pickle.loads"),
        ([b"ctorch.storage\n_load_from_bytes\n"], "names torch.storage._load_from_bytes"),
        ([b"\x8c\x02os", b"\x8c\x06system", b"\x93"], "names os.system"),
        ([b"K\x01", b"K\x02", b"\x93"], "a name that is not text"),
        ([b"ios\nsystem\n"], "instruction INST"),
        ([b"(cos\nsystem\n"], "names os.system"),
        ([b"(o"], "instruction OBJ"),
        ([b"\x82\x01"], "instruction EXT1"),
        ([b"]", b")", b"\x81"], "calls what is not a name"),
        ([b"K\x01", b")", b"R"], "calls what is not a name"),
        ([b"ccollections\nOrderedDict\n", b"K\x05", b"\x85", b"R"], "damaged"),
        ([b"h\x07"], "damaged"),
        ([b"R"], "damaged"),
        ([b"K\x01", b"K\x02", b"a"], "appends to what is not a list"),
        ([b"X\x01\x00\x00\x00a", b"Q"], "damaged"),
        ([b"\x8a\xff"], "damaged"),
        ([b"}", b"(", b"K\x01", b"u"], "sets items"),
    ],
)
def test_a_pickle_that_is_not_one_of_weights_is_refused(tmp_path, instructions, words):
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickled(*instructions)))
    assert words in refusal(path)


def test_a_pickle_in_a_pickle_does_not_run(tmp_path, bomb):
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickle.dumps({"x": pickle.dumps(bomb)}, protocol=2)))
    assert "has no weights of a CLIP" in refusal(path)
    path.write_bytes(with_pickle(saved(WEIGHTS)))
    assert "its pickle is damaged" in refusal(path)


def test_a_whole_module_is_refused_by_its_class(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "names torch.nn.modules.linear.Linear" in refusal(path)


def test_code_of_a_torchscript_archive_does_not_run(tmp_path, bomb):
    path = tmp_path / "model.pt"
    path.write_bytes(
        archive(
            [
                *members(WEIGHTS),
                ("archive/code/__torch__.py", b"raise SystemExit"),
                ("archive/constants.pkl", pickle.dumps(bomb)),
            ]
        )
    )
    write_tokenizer(tmp_path)
    load_clip(path)
    assert not (tmp_path / "ran").exists()


# Archives


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: archive(members(WEIGHTS), zipfile.ZIP_DEFLATED), "a compressed or encrypted member"),
        (lambda: archive([("a/data.pkl", bytes(50_000_000))], zipfile.ZIP_DEFLATED), "is a bomb"),
        (lambda: archive([("a/data.pkl", bytes(17 * 2**20))]), "17,825,792 bytes, more than a model's"),
        (lambda: archive([*members(WEIGHTS), ("../../evil", b"x")]), "a member outside of itself, '../../evil'"),
        (lambda: archive([*members(WEIGHTS), ("/etc/evil", b"x")]), "a member outside of itself"),
        (lambda: archive([*members(WEIGHTS), ("C:\\evil", b"x")]), "a member outside of itself"),
        (lambda: archive([*members(WEIGHTS), ("b/data.pkl", b"x")]), "has 2 data.pkl"),
        (lambda: archive([("model.bin", saved(WEIGHTS))]), "has 0 data.pkl"),
        (lambda: archive([]), "not a file of PyTorch's"),
        (lambda: saved(WEIGHTS)[:-100], "damaged or cut off"),
        (lambda: saved(WEIGHTS)[:2000], "damaged or cut off"),
        (lambda: saved(WEIGHTS, _use_new_zipfile_serialization=False)[:-100], "is cut off or has another size"),
        (lambda: saved(WEIGHTS, _use_new_zipfile_serialization=False)[:60], "its pickle"),
        (lambda: b"", "not a file of PyTorch's"),
        (lambda: b"\x1f\x8b" + bytes(100), "but gzip"),
        (lambda: b"<html>404</html>", "but a web page"),
        (lambda: b"\x89HDF\r\n", "but HDF5"),
        (lambda: pickle.dumps({"a": 1}), "a bare pickle"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "not a file of PyTorch's"),
    ],
)
def test_an_archive_that_is_not_pytorchs_is_refused(tmp_path, content, words):
    path = tmp_path / "model.pt"
    path.write_bytes(content())
    assert words in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(archive([*members(WEIGHTS), members(WEIGHTS)[-1]]))
    assert "two members" in refusal(path)


def test_big_endian_numbers_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(
        archive([(name, b"big" if name.endswith("byteorder") else body) for name, body in members(WEIGHTS)])
    )
    assert "big-endian" in refusal(path)


def tensor_pickle(*, count=4, offset=0, shape=(2, 2), stride=(2, 1), dtype="FloatStorage", key="0"):
    """A pickle of {"a": tensor} that says what it wants about the tensor."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = [b"(", text("storage"), f"ctorch\n{dtype}\n".encode(), text(key), text("cpu"), number(count), b"tQ"]
    arguments = [b"(", *storage, number(offset), numbers(shape), numbers(stride), b"\x89", b"}", b"t"]
    return pickled(b"}", text("a"), b"ctorch._utils\n_rebuild_tensor_v2\n", *arguments, b"R", b"s")


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"shape": (2, 3)}, "a reaches beyond its storage"),
        ({"offset": 1}, "a reaches beyond its storage"),
        ({"stride": (2**40, 1)}, "a reaches beyond its storage"),
        ({"shape": (10**9, 10**9), "stride": (0, 0)}, "a reaches beyond its storage"),
        ({"shape": (-1, 2)}, "sizes that are not numbers"),
        ({"offset": -8}, "sizes that are not numbers"),
        ({"shape": (2, 2, 1)}, "impossible sizes"),
        ({"count": 2**50}, "missing or has another size"),
        ({"count": -4}, "without a key or size"),
        ({"key": "../0"}, "missing or has another size"),
        ({"key": "7"}, "missing or has another size"),
        ({"dtype": "QInt8Storage"}, "torch.QInt8Storage"),
        ({"dtype": "ComplexFloatStorage"}, "torch.ComplexFloatStorage"),
    ],
    ids=str,
)
def test_a_tensor_that_lies_about_its_size_is_refused(tmp_path, lie, words):
    path = tmp_path / "model.pt"
    path.write_bytes(archive([("a/data.pkl", tensor_pickle(**lie)), ("a/data/0", bytes(16))]))
    assert words in refusal(path)


def test_that_tensor_would_be_read_if_it_did_not_lie(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(archive([("a/data.pkl", tensor_pickle()), ("a/data/0", bytes(16))]))
    assert read_index(path, "model")["tensors"]["a"][:3] == ["F32", [2, 2], [2, 1]]


def test_values_that_contain_each_other_a_billion_times_are_refused(tmp_path):
    """Thirty dictionaries, each with the next one twice."""
    body = b"}q\x00" + b"".join(b"}(K\x01h%cK\x02h%cuq%c" % (number, number, number + 1) for number in range(30))
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickled(body)))
    assert "nests values too deeply, or repeats them too often" in refusal(path)


def test_a_value_that_contains_itself_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickled(b"]q\x00h\x00a")))
    assert "nests values too deeply" in refusal(path)


def test_a_pickle_of_millions_of_instructions_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickled(b"]0" * 2_100_000)))
    assert "more than 4,000,000 instructions" in refusal(path)


@pytest.mark.parametrize(("seconds", "memory"), [(1, 2**31), (60, 2**24)], ids=["time", "memory"])
def test_the_process_that_reads_is_limited(tmp_path, seconds, memory):
    path = tmp_path / "model.pt"
    path.write_bytes(with_pickle(pickled(b"]" * 3_900_000)))
    with pytest.raises(RvptError, match=r"needs more than|needs too much memory"):
        read_index(path, "model", seconds, memory)


def test_a_limited_process_cannot_write_files(tmp_path):
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    else:
        limit(10, 2**40)
        try:
            (tmp_path / "x").write_bytes(b"x")
        except OSError:
            os._exit(7)
        os._exit(0)


# safetensors


def header(facts, data=b""):
    body = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return struct.pack("<Q", len(body)) + body + data


def entry(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        header(b"{" * 10_000),
        header(b'{"a":'),
        header([]),
        header({"a": entry(0, 8)}),
        header({"a": entry(0, 2**60, (2**58,))}, bytes(8)),
        header({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        header({"a": entry(8, 0)}, bytes(8)),
        header({"a": entry(0, 8, (2**62, 4))}, bytes(8)),
        header({"a": entry(0, 8, (-2,))}, bytes(8)),
        header({"a": entry(0, 8, (2,), "F7")}, bytes(8)),
        header({"a": entry(4, 12)}, bytes(12)),
        header({"a": entry(0, 8)}, bytes(80)),
        save(WEIGHTS)[:-100],
        saved(WEIGHTS),
    ],
    ids=lambda content: f"{len(content)} bytes {content[:12]!r}",
)
def test_a_damaged_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "model.safetensors is not a complete safetensors file" in refusal(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_sparse_file_of_100_gb_is_refused(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    with path.open("wb") as file:
        file.truncate(100 * 10**9)
    assert "has 93 GiB, more than any CLIP" in refusal(path)


def test_a_large_sparse_tensor_costs_no_memory(tmp_path):
    """30 GB of zeros that are said to be an embedding of tokens: refused by shape, before they are read."""
    path, before = write_tokenizer(tmp_path) / "model.safetensors", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = 30 * 10**9 // 4 // 64
    small = {key: value for key, value in WEIGHTS.items() if key != "token_embedding.weight"}
    body = save(small)
    size = struct.unpack("<Q", body[:8])[0]
    facts, data = json.loads(body[8 : 8 + size]), body[8 + size :]
    facts["token_embedding.weight"] = entry(len(data), len(data) + rows * 256, (rows, 64))
    start = header(facts, data)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + rows * 256)
    assert "more than any CLIP" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


# Folders


@pytest.fixture
def folder(tmp_path):
    place = write_tokenizer(tmp_path / "model")
    save_file(WEIGHTS, place / "open_clip_model.safetensors")
    write_json(place / "open_clip_config.json", open_clip_config())
    return place


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "open_clip_model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "open_clip_model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert "open_clip_model.safetensors is a link to a file outside of the folder" in refusal(folder)


def test_a_link_within_the_folder_is_read(folder):
    (folder / "open_clip_model.safetensors").rename(folder / "weights")
    (folder / "open_clip_model.safetensors").symlink_to("weights")
    load_clip(folder)


def test_a_pipe_is_refused(folder):
    (folder / "open_clip_model.safetensors").unlink()
    os.mkfifo(folder / "open_clip_model.safetensors")
    assert "is not a file with contents" in refusal(folder)


def test_a_configuration_of_absurd_size_is_refused(folder):
    with (folder / "tokenizer.json").open("ab") as file:
        file.truncate(10**9)
    assert "tokenizer.json has 953 MiB, more than a model's" in refusal(folder)


def test_a_deeply_nested_configuration_is_refused(folder):
    (folder / "open_clip_config.json").write_text("[" * 200_000)
    assert "cannot be read as JSON" in refusal(folder)


def in_transformers(folder, **tower):
    """The folder in transformers' layout, with another vision_config."""
    load_clip(folder).save_pretrained(folder.parent / "hf")
    (folder.parent / "hf" / "manifest.json").unlink()
    config = read_json(folder.parent / "hf" / "config.json")
    write_json(folder.parent / "hf" / "config.json", {**config, "vision_config": {**config["vision_config"], **tower}})
    return folder.parent / "hf"


@pytest.mark.parametrize(
    ("tower", "words"),
    [
        ({"num_hidden_layers": 10**9}, "more than any CLIP"),
        ({"num_hidden_layers": 200}, "are missing"),
        ({"hidden_size": 10**9, "num_attention_heads": 1}, "more than any CLIP"),
        ({"hidden_size": 2**16, "num_attention_heads": 1}, "parameters, more than any CLIP"),
        ({"hidden_size": 128}, "have another shape than the config says"),
        ({"intermediate_size": 10**12}, "more than any CLIP"),
        ({"image_size": 10**9}, "larger than any CLIP's"),
        ({"image_size": -8}, "config"),
        ({"patch_size": 0}, "config"),
        ({"hidden_size": "64"}, "could not use its config"),
        ({"num_attention_heads": 7}, "could not use its config"),
        ({"hidden_act": "evil.module"}, "could not use its config"),
        ({"hidden_act": 7}, "could not use its config"),
    ],
    ids=str,
)
def test_a_configuration_with_absurd_sizes_is_refused(folder, tower, words):
    assert words in refusal(in_transformers(folder, **tower))


def test_keys_that_could_name_code_are_not_read(folder):
    place = in_transformers(folder, _attn_implementation="evil/kernel", attn_implementation="evil/kernel")
    assert load_clip(place).model.config.vision_config._attn_implementation != "evil/kernel"


def test_shards_outside_of_the_folder_are_not_read(folder):
    place = in_transformers(folder)
    (place / "model.safetensors").unlink()
    write_json(
        place / "model.safetensors.index.json", {"weight_map": {"logit_scale": "../model/open_clip_model.safetensors"}}
    )
    assert "a file outside of the folder" in refusal(place)


def test_code_of_a_clip_is_named_and_not_run(folder, caplog):
    place = in_transformers(folder)
    (place / "own.py").write_text("raise SystemExit")
    config = read_json(place / "config.json")
    write_json(place / "config.json", {**config, "auto_map": {"AutoModel": "own.Model"}})
    load_clip(place)
    assert "names its own code (auto_map: own.Model), which was not run" in caplog.text


def test_a_copy_of_the_hubs_cache_may_have_its_links(folder, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    (snapshot / "open_clip_config.json").rename(tmp_path / "models--a--b" / "blobs" / "1")
    (snapshot / "open_clip_config.json").symlink_to("../../blobs/1")
    load_clip(snapshot)


def test_a_link_beside_a_file_is_refused(folder, tmp_path):
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    assert "tokenizer.json is a link to a file outside" in refusal(folder / "open_clip_model.safetensors")


# The fuzzer


def test_what_the_fuzzer_makes_is_loaded_or_refused():
    """A few hundred inputs; rows/fuzz.jsonl has the result of many."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--inputs", "800", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "800 inputs, 0 failures" in done.stdout
