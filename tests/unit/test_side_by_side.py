"""tests/side_by_side.py and tests/summary.py: nothing passes by not running."""

import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]


def run(tmp_path, **files):
    """What side_by_side says of these test files, and what the summary does."""
    for name, text in files.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    logs = tmp_path / "logs"
    command = [sys.executable, TESTS / "side_by_side.py", logs / "lab", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    (logs / "lab.rc").write_text(str(done.returncode))
    command = [sys.executable, TESTS / "summary.py", logs]
    summary = subprocess.run(command, capture_output=True, text=True)
    assert summary.returncode == done.returncode
    return done, summary.stdout


def test_tests_of_all_files_are_counted(tmp_path):
    done, summary = run(
        tmp_path,
        one="def test_a(): pass\ndef test_b(): pass\n",
        two="def test_c(): pass\n",
    )
    assert done.returncode == 0 and "2 files, 0 failed" in done.stdout
    assert summary.splitlines()[-1] == "3 passed, 0 failed"


def test_a_failed_test_fails_all_and_its_output_is_shown(tmp_path):
    done, summary = run(
        tmp_path,
        one="def test_a(): pass\n",
        two="def test_b(): assert 'this' == 'that'\n",
    )
    assert done.returncode == 1 and "'this' == 'that'" in done.stdout
    assert "test_two::test_b" in summary
    assert summary.splitlines()[-1] == "1 passed, 1 failed"


def test_a_file_that_ends_without_results_counts_as_failed(tmp_path):
    done, summary = run(tmp_path, one="def test_a(): pass\n", two="import os; os._exit(0)\n")
    assert done.returncode == 1
    assert "failed: test_two" in summary
    assert summary.splitlines()[-1] == "1 passed, 1 failed"


def test_a_file_without_a_test_fails(tmp_path):
    done, _ = run(tmp_path, one="def test_a(): pass\n", two="")
    assert done.returncode == 1


def test_no_file_at_all_fails(tmp_path):
    done, _ = run(tmp_path)
    assert done.returncode == 1
