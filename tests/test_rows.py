"""Rows: written and read as JSONL, all or none; checked before they are reported; as a DataFrame."""

import errno
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import rvpt
from rvpt.errors import MachineError, RvptError
from rvpt.rows import Rows, append_rows, read_measurements, read_rows, refuse_foreign, write_rows

ROW = {"model": "m", "data": "d", "attack": "none", "defense": "none", "seed": 0, "metric": "CA", "rate": 0.5}


def test_rows_come_back_in_order_and_are_appended(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"metric": "CA", "rate": 0.5, "spec": {"lr": 1}, "note": "ä\u2028\n"}, {"metric": "ASR", "rate": None}]
    append_rows(path, rows)
    append_rows(path, iter(rows[:1]))
    assert read_rows(path) == [*rows, rows[0]]
    assert len(path.read_bytes().split(b"\n")) == 4


def test_written_rows_replace_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW, ROW])
    write_rows(path, iter([{**ROW, "seed": 1}]))
    assert read_rows(path) == [{**ROW, "seed": 1}]
    write_rows(str(path), [ROW])
    assert read_rows(str(path)) == [ROW]


def test_a_row_begins_a_line_of_its_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"metric": "CA"}')  # as editors leave it
    append_rows(path, [{"metric": "PA"}])
    assert read_rows(path) == [{"metric": "CA"}, {"metric": "PA"}]


def test_only_the_first_process_of_a_launch_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    append_rows(tmp_path / "rows.jsonl", [ROW])
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize("line", [b'{"metric": "C', b"7", b"[]", b'[["metric", 1]]', b'{"a": "\xff"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"metric": "CA"}])
    with path.open("ab") as file:
        file.write(line + b"\n" + json.dumps({"metric": "PA"}).encode() + b"\n")
    with pytest.raises(RvptError, match=r"rows\.jsonl, line 2: not a JSON object"):
        read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "nothing.jsonl"):
        with pytest.raises(RvptError, match=f"{place} is missing: give a file of rows"):
            read_rows(place)


@pytest.mark.parametrize("before", [[], [{"metric": "CA"}]])
def test_on_a_full_disk_all_rows_are_written_or_none(tmp_path, monkeypatch, before):
    path = tmp_path / "rows.jsonl"
    append_rows(path, before)

    @contextmanager
    def nearly_full(self, mode, **options):
        with open(self, mode, **options) as file:

            class Disk:
                seek, read = file.seek, file.read

                def write(self, text):
                    file.write(text[:5])
                    file.flush()
                    raise OSError(errno.ENOSPC, "No space left on device")

            yield Disk()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", nearly_full)
        with pytest.raises(MachineError, match="no space left"):
            append_rows(path, [{"metric": "PA"}])
    assert (read_rows(path) if path.exists() else []) == before


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_a_device_that_is_full_is_an_error_of_the_machine():
    with pytest.raises(MachineError, match="no space left to write /dev/full"):
        append_rows(Path("/dev/full"), [ROW])


def test_measurements_are_rows_with_all_that_reports_need(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROW, {**ROW, "metric": "of my own", "more": 1}])
    assert read_measurements(path) == read_rows(path)


@pytest.mark.parametrize("key", sorted(ROW))
def test_a_row_without_a_key_that_reports_need_is_named(tmp_path, key):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROW, {name: value for name, value in ROW.items() if name != key}])
    with pytest.raises(RvptError, match=rf"rows\.jsonl, line 2: no '{key}'"):
        read_measurements(path)


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(RvptError, match=r"rows\.jsonl is empty"):
        read_measurements(tmp_path / "rows.jsonl")


def test_rows_as_a_data_frame(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [ROW, {**ROW, "rate": 0.25, "targets": {"badnet": "cat"}}])
    frame = rvpt.read_rows(tmp_path / "rows.jsonl").to_pandas()
    assert frame["rate"].tolist() == [0.5, 0.25]
    assert frame["targets"][1] == {"badnet": "cat"}
    assert list(frame.columns) == [*sorted(ROW), "targets"]


def test_without_pandas_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RvptError, match="to_pandas needs pandas: pip install pandas"):
        Rows([ROW]).to_pandas()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 5},
        {"rate": True},
        {"rate": "x"},
        {"hashes": None},
        {"model": 3},
        {"n": "x"},
        {"low": []},
        {"seconds": True},
    ],
)
def test_values_that_no_measurement_has_are_refused(tmp_path, wrong):
    row = {"model": "m", "data": "d", "attack": "none", "defense": "none", "seed": 0, "metric": "CA", "rate": 0.5}
    write_rows(tmp_path / "rows.jsonl", [row, {**row, **wrong}])
    with pytest.raises(RvptError, match=f"line 2: '{next(iter(wrong))}' cannot be"):
        read_measurements(tmp_path / "rows.jsonl")


def test_rows_are_not_appended_to_a_file_of_another_kind(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(RvptError, match="does not hold rows"):
        refuse_foreign(path)
    assert path.read_bytes() == b"\x89PNG\r\n"
    refuse_foreign(tmp_path / "new.jsonl")
