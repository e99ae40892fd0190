"""Single files: whole or not at all, and what is wrong with a place to write is reported before the work."""

import errno

import pytest

from helpers import contents
from rvpt.errors import MachineError, RvptError, first_line
from rvpt.files import (
    read_json,
    refuse_existing_file,
    refuse_unwritable_file,
    sha256_file,
    staged_file,
    write_json,
    write_text,
)


def test_a_file_appears_whole_and_its_folders_are_created(tmp_path):
    path = tmp_path / "deep" / "table.md"
    with staged_file(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".md"  # libraries choose the format by it
        assert not path.exists()
    assert contents(tmp_path) == {"deep": None, "deep/table.md": b"half"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_fails(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with staged_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def replace(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(MachineError, match=r"no space left to write .*a\.txt: free some"):
        write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_json_comes_back(tmp_path):
    value = {"b": [1, 2.5, None], "ü": "é\u2028"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [b'{"b": [1,', b"", b'"\xff"'])
def test_a_damaged_json_file_is_named_in_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RvptError, match=r"a\.json cannot be read as JSON") as refusal:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(refusal.value)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(RvptError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1


def test_a_file_is_replaced_only_if_asked(tmp_path):
    path = tmp_path / "a.txt"
    refuse_existing_file(path, overwrite=False)
    path.write_text("mine")
    with pytest.raises(RvptError, match=r"a\.txt already exists: choose another file or pass overwrite=True"):
        refuse_existing_file(path, overwrite=False)
    refuse_existing_file(path, overwrite=True)


def test_a_place_where_no_file_can_be_written_is_refused(tmp_path):
    with pytest.raises(RvptError, match="is a folder: give a file"):
        refuse_unwritable_file(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RvptError, match=r"rows.jsonl cannot be created: .*file is not a writable folder"):
        refuse_unwritable_file(tmp_path / "file" / "rows.jsonl")
    refuse_unwritable_file(tmp_path / "new" / "rows.jsonl")


def test_both_errors_are_those_that_python_programs_catch():
    assert issubclass(RvptError, ValueError)
    assert issubclass(MachineError, RuntimeError)
    assert not issubclass(MachineError, RvptError)


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("\none\n two"), "one"), (KeyError(), "KeyError"), (OSError(2, "x"), "[Errno 2] x")]
)
def test_the_first_line_of_another_librarys_message(error, line):
    assert first_line(error) == line
