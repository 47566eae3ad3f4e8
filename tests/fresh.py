"""Python in a fresh process: code, or a script as its user runs it."""

import os
import subprocess
import sys


def python(*arguments, exit_code=0, cwd=None, **environment):
    """What a Python with these arguments says, as `subprocess.run` returns it.

    It has to end with `exit_code`, unless that is None. What is None in
    `environment` is taken out of it.
    """
    environment = {**os.environ, "COLUMNS": "100", **environment}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={k: v for k, v in environment.items() if v is not None},
        capture_output=True,
        text=True,
    )
    assert exit_code in (None, done.returncode), done.stderr[-3000:]
    return done


def run_python(code, cwd=None, **environment):
    """What `code` prints."""
    return python("-c", code, cwd=cwd, **environment).stdout
