"""Turns a skipped test into a failure of the run: `python -m pytest -p tests._no_skips`.

Loaded by `make test` when CI=true or NO_SKIPS=1. Where a test does not apply at all, its reason says so by
starting with "expected: ", and it is let through. An expected failure (xfail) is no skip.
"""

import pytest

EXPECTED = "expected: "
_unexpected: list[str] = []


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and not _reason(report).startswith(EXPECTED):
        _unexpected.append(f"{report.nodeid}: {_reason(report)}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unexpected:
        terminalreporter.section("unexpected skips: they fail this run", red=True, bold=True)
        for line in _unexpected:
            terminalreporter.line(line)
