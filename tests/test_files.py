import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from utils.files import exclusive_lock, is_disk_full, sha256_of, write_atomically, write_bytes

ROOT = Path(__file__).parent.parent

HOLD_LOCK = """
import sys
from pathlib import Path
from utils.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "process that dies") as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_a_written_file_replaces_the_old_one_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with write_atomically(path) as out:
        out.write(b"new")
        out.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")

    def fail() -> None:
        with write_atomically(path) as out:
            out.write(b"half of the ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    data = b"x" * 3_000_000
    write_bytes(tmp_path / "a", data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_full_disk_and_a_full_quota_are_told_from_other_errors():
    assert is_disk_full(OSError(errno.ENOSPC, "full"))
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "absent"))


def test_a_lock_is_refused_while_another_holds_it_and_names_the_holder(tmp_path):
    path = tmp_path / "locks" / "build.lock"
    with exclusive_lock(path, "first") as held:
        assert held
        with exclusive_lock(path, "second") as also_held:
            assert not also_held
        assert path.read_text() == "first"
    with exclusive_lock(path, "third") as held:
        assert held
        assert path.read_text() == "third"


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    path = tmp_path / "build.lock"
    command = [sys.executable, "-c", HOLD_LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with exclusive_lock(path, "us") as held:
            assert not held
        holder.kill()
        holder.wait()
        with exclusive_lock(path, "us") as held:
            assert held
