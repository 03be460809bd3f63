"""The journal: nothing half written, nothing twice, and one sentence for whatever is wrong with the file."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from full_disk import no_file_above, resource

from nasnet_zoo.errors import JournalError, ZooError
from nasnet_zoo.search.journal import Journal, on_network, pack_state, read_events, unpack_state


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / "journal.sqlite"


@pytest.fixture
def journal(path):
    with closing(Journal.create(path, {"identity": {"seed": 0}})) as journal:
        yield journal


def fill(journal: Journal, children: int, first: int = 0, at_once: int = 10) -> None:
    """Two events for each of these children, in transactions of `at_once` children."""
    for start in range(first, first + children, at_once):
        with journal.transaction():
            for child in range(start, min(start + at_once, first + children)):
                journal.add("proposed", child, tokens=[child] * 50, hash=f"{child:016x}", notes={}, place=0, of=1)
                journal.add("finished", child, status="done", reward=child / 1000, metrics={"accuracy": child / 1000})


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def rewrite(path: Path, statement: str, *values) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_events_come_back_in_order(path, journal):
    fill(journal, 3)
    with journal.transaction():
        journal.add("session", None, host="here")
        assert journal.add("started", 1, attempt=2) == 8
    journal.close()
    with closing(Journal.open_existing(path)) as journal:
        events = journal.events()
        assert [event.id for event in events] == list(range(1, 9))
        kinds = ["proposed", "finished"] * 3
        assert [(event.kind, event.child) for event in events] == [
            *((kind, place // 2) for place, kind in enumerate(kinds)),
            ("session", None),
            ("started", 1),
        ]
        assert events[2].body == {"tokens": [1] * 50, "hash": f"{1:016x}", "notes": {}, "place": 0, "of": 1}
        assert [event.time for event in events] == sorted(event.time for event in events)
        assert journal.events("session") == events[6:7]
        assert journal.meta() == {"format_version": 1, "identity": {"seed": 0}}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_transaction_is_all_or_nothing(path, journal, error):
    fill(journal, 1)
    with pytest.raises(error), journal.transaction():
        journal.add("proposed", 1)
        journal.keep_state(2, {"a": 1})
        raise error
    assert len(journal.events()) == 2 and journal.state() is None
    fill(journal, 1, first=1)  # and goes on as if nothing had been
    assert len(read_events(path)[1]) == 4


@pytest.mark.parametrize("kind", ["proposed", "finished"])
def test_nothing_is_proposed_or_finished_twice(journal, kind):
    fill(journal, 2)
    with pytest.raises(JournalError, match="UNIQUE"), journal.transaction():
        journal.add("started", 1, attempt=2)
        journal.add(kind, 1)
    assert len(journal.events()) == 4
    with journal.transaction():
        journal.add("started", 1, attempt=2)
        journal.add("started", 1, attempt=3)  # may be more than once
        journal.add("updated", None, children=[0])
        journal.add("updated", None, children=[1])


def test_the_last_state_takes_the_place_of_those_before(path, journal):
    for event in (1, 2):
        with journal.transaction():
            journal.keep_state(event, {"weights": torch.full((3, 2), float(event)), "rng": [event, None, 0.5]})
    event, state = journal.state()
    assert event == 2 and state["rng"] == [2, None, 0.5] and torch.equal(state["weights"], torch.full((3, 2), 2.0))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM snapshot").fetchone() == (1,)


def test_a_state_survives_packing():
    state = {
        "bytes": torch.arange(5, dtype=torch.uint8),
        "turned": torch.arange(6.0).view(2, 3).T,
        "words": [3, [2**32 - 1, 0], None],
        "float": 0.1 + 0.2,
        "none": None,
    }
    again = unpack_state(pack_state(state))
    assert again.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(again[key], value) if torch.is_tensor(value) else again[key] == value
    assert unpack_state(pack_state({})) == {}


def settings(journal: Journal) -> tuple[str, int]:
    """SQLite's journal_mode, and synchronous, where 2 is FULL."""
    connection = journal._connection
    return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))


def test_what_is_committed_survives_a_power_cut(path, journal, monkeypatch):
    assert settings(journal) == ("wal", 2)
    journal.close()
    with closing(Journal.open_existing(path)) as journal:
        assert settings(journal) == ("wal", 2)
    monkeypatch.setattr("nasnet_zoo.search.journal.on_network", lambda path: True)
    with closing(Journal.open_existing(path)) as journal:
        fill(journal, 3)
        assert settings(journal) == ("delete", 2)  # a write-ahead log needs memory that all its users share
        assert not list(path.parent.glob("*-wal"))
    assert len(read_events(path)[1]) == 6


@pytest.mark.parametrize(
    ("place", "network"),
    [
        ("/home/a/run", False),
        ("/scratch/run", True),
        ("/scratch/local/run", False),
        ("/scratch", True),
        ("/scratches/run", False),
        ("/with space/run", True),
        ("/auto/run", True),
        ("/smb/run", True),
        ("/glusterfs/run", True),
        ("/tmpfs/run", False),
    ],
)
def test_network_file_systems_are_told_by_the_innermost_mount(tmp_path, place, network):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/scratch /scratch nfs4 rw,vers=4.2 0 0\n"
        "/dev/sdb1 /scratch/local xfs rw 0 0\n"
        r"server:/space /with\040space lustre rw 0 0" + "\n"
        "/etc/auto.direct /auto autofs rw 0 0\n"
        "server:/auto /auto nfs rw 0 0\n"
        "//server/share /smb cifs rw 0 0\n"
        "server:/volume /glusterfs fuse.glusterfs rw 0 0\n"
        "tmpfs /tmpfs tmpfs rw 0 0\n"
        "\n"
    )
    assert on_network(Path(place), str(mounts)) == network


def test_a_link_into_a_network_file_system_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/ {(tmp_path / 'there').resolve()} nfs rw 0 0\n")
    assert on_network(tmp_path / "here" / "journal.sqlite", str(mounts))
    assert not on_network(tmp_path / "journal.sqlite", str(mounts))


def test_without_a_table_of_mounts_a_path_is_local(tmp_path):
    assert not on_network(tmp_path, str(tmp_path / "none"))


@pytest.mark.parametrize("network", [False, True])
def test_a_reader_beside_a_writer_sees_what_is_committed(path, monkeypatch, network):
    monkeypatch.setattr("nasnet_zoo.search.journal.on_network", lambda path: network)
    with closing(Journal.create(path, {})) as journal:
        fill(journal, 5)
        with journal.transaction():
            journal.add("proposed", 5)
            assert len(read_events(path)[1]) == 10
        assert len(read_events(path)[1]) == 11
        fill(journal, 1, first=6)


WRITER = """
import sys
from nasnet_zoo.search.journal import Journal
journal = Journal.open_existing(sys.argv[1])
for child in range(50):
    with journal.transaction():
        journal.add("proposed", child)
        journal.add("started", child, attempt=1)
"""


def test_a_reader_never_sees_half_a_transaction_of_another_process(path, journal):
    journal.close()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path])
    seen = [0]
    while writer.poll() is None:
        seen.append(len(read_events(path)[1]))
        time.sleep(0.01)
    assert writer.returncode == 0
    assert seen == sorted(seen) and all(count % 2 == 0 for count in seen)
    assert len(read_events(path)[1]) == 100


# What is wrong with a file


def refused(path: Path, *parts: str) -> None:
    """Opening is refused, in one sentence with these parts in it, and nothing on the disk changes."""
    before = contents(path)
    for attempt in (Journal.open_existing, read_events):
        with pytest.raises(JournalError) as told:
            attempt(path)
        message = str(told.value)
        assert str(path) in message and "\n" not in message
        assert all(part in message for part in parts), message
    assert contents(path) == before


SALVAGE = "copy the folder", ".recover", "start in another folder"


@pytest.fixture
def closed(path, journal) -> Path:
    """The path of a journal of 60 children that no one has open."""
    fill(journal, 60)
    with journal.transaction():
        journal.keep_state(120, {"weights": torch.rand(10_000)})
    journal.close()
    return path


def test_a_file_that_is_missing(path):
    with pytest.raises(JournalError, match="there is no journal .*: name the folder of a search, or start one"):
        Journal.open_existing(path)
    assert not path.parent.exists()


def test_a_file_of_another_version(closed):
    rewrite(closed, "UPDATE meta SET value = '2' WHERE key = 'format_version'")
    refused(closed, "has format 2, this nasnet_zoo reads 1", "use the nasnet_zoo that wrote it, or another folder")
    rewrite(closed, "DELETE FROM meta")
    refused(closed, "has format None")


def test_events_of_another_version(closed):
    rewrite(closed, "UPDATE events SET kind = 'paused' WHERE id = 9")
    rewrite(closed, "UPDATE events SET kind = 'cloned' WHERE id = 12")
    refused(
        closed, "has events that this nasnet_zoo does not know (cloned, paused)", "use the nasnet_zoo that wrote it"
    )


@pytest.mark.parametrize("bytes_", [b"", b"not a journal", b"SQLite format 3\0" + bytes(84), bytes(20_000)])
def test_a_file_that_is_no_journal(path, bytes_):
    path.parent.mkdir()
    path.write_bytes(bytes_)
    refused(path, *SALVAGE)


def test_another_programs_database_is_left_as_it_is(path):
    path.parent.mkdir()
    rewrite(path, "CREATE TABLE theirs (a)")
    refused(path, "no such table", *SALVAGE)


@pytest.mark.parametrize("kept", [50, 5000, 0.5, 0.9])
def test_a_file_that_is_cut_off(closed, kept):
    whole = closed.read_bytes()
    closed.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    refused(closed, *SALVAGE)


def test_a_page_of_zeros(closed):
    whole, size = closed.read_bytes(), 4096
    assert len(whole) == 20 * size
    for page in range(19):  # the last one is the end of the state, where SQLite sees no difference
        closed.write_bytes(whole[: page * size] + bytes(size) + whole[(page + 1) * size :])
        refused(closed, *SALVAGE)


def test_garbage_anywhere_is_one_sentence_or_no_harm(closed):
    """A damaged byte that SQLite cannot see changes a value at most; whatever reads it must say so or be right."""
    whole, rng = closed.read_bytes(), random.Random(0)
    refusals = 0
    for _ in range(60):
        start, length = rng.randrange(len(whole) - 300), rng.choice([1, 3, 20, 300])
        closed.write_bytes(whole[:start] + rng.randbytes(length) + whole[start + length :])
        try:
            with closing(Journal.open_existing(closed)) as journal:
                journal.meta(), journal.events(), journal.state()
        except JournalError as told:
            refusals += 1
            assert str(closed) in str(told) and "\n" not in str(told) and len(str(told)) < 600
    assert 15 < refusals < 60


def test_a_value_that_is_no_json(closed):
    rewrite(closed, "UPDATE events SET body = ? WHERE id = 7", '{"status": "do')
    with closing(Journal.open_existing(closed)) as journal, pytest.raises(JournalError, match="is damaged .*recover"):
        journal.events()
    rewrite(closed, "UPDATE events SET body = CAST(? AS TEXT) WHERE id = 7", b'{"status": "\xff\n"}')
    with closing(Journal.open_existing(closed)) as journal, pytest.raises(JournalError, match="decode.*recover"):
        journal.events()
    rewrite(closed, "UPDATE snapshot SET state = ?", b"\x05\0\0\0\0\0\0\0{}")
    with closing(Journal.open_existing(closed)) as journal, pytest.raises(JournalError, match="is damaged .*recover"):
        journal.state()


# A full disk


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
@pytest.mark.parametrize("network", [False, True])
def test_a_full_disk_loses_nothing_that_was_committed(path, monkeypatch, network):
    monkeypatch.setattr("nasnet_zoo.search.journal.on_network", lambda path: network)
    with closing(Journal.create(path, {})) as journal:
        with no_file_above(100_000), pytest.raises(JournalError) as told:
            fill(journal, 1000)
        assert "has space" in str(told.value) and "run the same command again" in str(told.value)
        count = len(journal.events())
        assert count >= 20 and count % 20 == 0  # whole transactions
        assert [event.child for event in journal.events()] == [place // 2 for place in range(count)]
        fill(journal, 10, first=count // 2)  # there is space again
    assert len(read_events(path)[1]) == count + 20


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
def test_no_journal_is_made_on_a_full_disk(path):
    with no_file_above(1000), pytest.raises(JournalError, match=f"{path}"):
        Journal.create(path, {})
    assert list(path.parent.iterdir()) == []
    Journal.create(path, {}).close()


def test_full_is_said_as_sqlite_says_it(path, journal):
    journal._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(JournalError, match="full.*free some space, then run the same command again"):
        fill(journal, 1000)
    journal._connection.execute("PRAGMA max_page_count = 1000")
    count = len(journal.events())
    assert count >= 20
    fill(journal, 1, first=1000)
    assert len(journal.events()) == count + 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ZooError, match="Cannot write .*something else has this name"):
        Journal.create(tmp_path / "file" / "journal.sqlite", {})
