"""Shared by all tests: an offline, single-threaded process, and one tiny student for the session.

What the user's shell sets must not change a result: variables of proxies, keys, launchers and colors are removed.
"""

import os
import signal
import tempfile
from contextlib import suppress

PREFIXES = ("OPENAI_", "HF_", "HUGGING", "TRANSFORMERS_", "ACCELERATE_", "MASTER_", "PYTHONWARNINGS")
NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "COLUMNS")
for variable in [*os.environ]:
    foreign = variable.startswith(PREFIXES) or variable in NAMES or variable.lower().endswith("_proxy")
    if foreign and not variable.endswith(("_HOME", "_CACHE")):
        del os.environ[variable]
if os.environ.get("HOME", "/") == "/":  # a user without a home: tests look for its name in what is published
    os.environ["HOME"] = tempfile.mkdtemp()
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:  # in the background or under nohup; subprocesses would inherit it
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, lambda *_: None)

# before torch or transformers is imported, because they read these variables only once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads under contention are slower than one
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tiny import make_tiny_student, make_tuned_student  # noqa: E402

settings.register_profile(
    "project",
    deadline=None,
    derandomize="CI" in os.environ,  # the same examples every time in CI; elsewhere new ones
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # too_slow: on a loaded machine
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer student and its tokenizer; copy it before you change it."""
    return make_tiny_student(tmp_path_factory.mktemp("tiny") / "student")


@pytest.fixture(scope="session")
def tuned_student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny student that answers the texts of `tiny.LEARNED`; copy it before you change it."""
    return make_tuned_student(tiny_student, tmp_path_factory.mktemp("tuned") / "student")
