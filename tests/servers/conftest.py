"""The parts of these tests that assert are not test modules by name."""

import pytest

pytest.register_assert_rewrite("tests.servers.checks", "tests.servers.server")
