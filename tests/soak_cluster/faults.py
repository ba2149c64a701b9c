"""What goes wrong: each fault begins, lasts, is mended, and is written down with its times.

Faults of one episode run side by side in threads. They are drawn before, from the seed, so that the same seed draws the
same; when exactly what happens is the machine's.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.net.network import Host, heal, part

from . import source
from .engine import Engine
from .events import Log, now
from .hosts import SoakHost

POWER = "power lost"
_LISTS = "taken out of the lists"

#: From the seed: what happens in an episode.
Fault = Callable[[], None]


class Drawn(NamedTuple):
    what: str
    on: str
    fault: Fault


class Faults:
    """Draws them."""

    def __init__(
        self, hosts: list[SoakHost], rng: random.Random, log: Log, slow: bool, engine: Engine | None,
        replace: Callable[[SoakHost], None],
    ) -> None:  # fmt: skip
        """`slow`: links can be slowed down. `replace`: switches a host on again that has lost power."""
        self._hosts, self._rng, self._log, self._engine = hosts, rng, log, engine
        self._replace = replace
        self._listing = threading.Lock()
        kinds = [self._kill_sidecar, self._stop_sidecar, self._restart_sidecar, self._part, self._one_way]
        kinds += [self._unplug, self._flap, self._break_callback]
        if slow:
            kinds.append(self._slow)
        if engine is None:
            kinds.append(self._reload)
        self.kinds: list[Callable[[SoakHost, float], Drawn]] = kinds

    def draw(self, number: int) -> list[Drawn]:
        """So many faults that can happen at the same time: each on another host. Power is lost alone."""
        if self._rng.random() < 0.12:
            return [self._lose_power(self._rng.choice(self._hosts), self._seconds())]
        hosts = self._rng.sample(self._hosts, min(number, len(self._hosts)))
        drawn = [self._rng.choice(self.kinds)(host, self._seconds()) for host in hosts]
        if self._engine is not None and self._rng.random() < 0.5:
            drawn[0] = self._of_engine(self._engine, self._seconds())
        return drawn

    def _links(self) -> list[Host]:
        """All that are on the switch."""
        return [host.host for host in self._hosts] + ([] if self._engine is None else [self._engine.host])

    def _seconds(self) -> float:
        return min(0.2 + self._rng.expovariate(0.5), 8.0)

    @contextmanager
    def noted(self, what: str, on: str) -> Iterator[None]:
        begin = now()
        try:
            yield
        finally:
            self._log.write("fault", what=what, on=on, begin=begin, end=now())

    # ---- processes

    def _kill_sidecar(self, host: SoakHost, seconds: float) -> Drawn:
        def fault() -> None:
            with self.noted("sidecar killed", host.name):
                host.kill_sidecar()
                time.sleep(seconds)
                host.start_sidecar()

        return Drawn("sidecar killed", host.name, fault)

    def _restart_sidecar(self, host: SoakHost, _: float) -> Drawn:
        def fault() -> None:
            with self.noted("sidecar restarted", host.name):
                host.end_sidecar()
                host.start_sidecar()

        return Drawn("sidecar restarted", host.name, fault)

    def _stop_sidecar(self, host: SoakHost, seconds: float) -> Drawn:
        def fault() -> None:
            with self.noted("sidecar stopped", host.name):
                assert host.sidecar is not None
                host.sidecar.signal(signal.SIGSTOP)
                time.sleep(seconds)
                host.sidecar.signal(signal.SIGCONT)

        return Drawn("sidecar stopped", host.name, fault)

    def _lose_power(self, host: SoakHost, seconds: float) -> Drawn:
        def fault() -> None:
            with self.noted(POWER, host.name):
                host.lose_power()
                time.sleep(seconds)
                self._replace(host)

        return Drawn(POWER, host.name, fault)

    def _break_callback(self, host: SoakHost, seconds: float) -> Drawn:
        def fault() -> None:
            with self.noted("on_reset fails", host.name):
                source.set_broken(host.directory, True)
                time.sleep(seconds)
                source.set_broken(host.directory, False)

        return Drawn("on_reset fails", host.name, fault)

    # ---- links

    def _part(self, host: SoakHost, seconds: float) -> Drawn:
        others = [each for each in self._links() if each is not host.host]
        with_it = self._rng.sample(others, self._rng.randrange(max(1, len(others) - 1)))
        one, other = [host.host, *with_it], [each for each in others if each not in with_it]

        def fault() -> None:
            with self.noted("partition", host.name):
                part(one, other)
                time.sleep(seconds)
                heal(one, other)

        return Drawn("partition", host.name, fault)

    def _one_way(self, host: SoakHost, seconds: float) -> Drawn:
        others = [each for each in self._links() if each is not host.host]
        deaf = self._rng.sample(others, self._rng.randint(1, len(others)))

        def fault() -> None:
            with self.noted("one direction lost", host.name):
                host.host.mute(*deaf)
                time.sleep(seconds)
                host.host.unmute(*deaf)

        return Drawn("one direction lost", host.name, fault)

    def _unplug(self, host: SoakHost, seconds: float) -> Drawn:
        def fault() -> None:
            with self.noted("link down", host.name):
                host.host.unplug()
                time.sleep(seconds)
                host.host.plug()

        return Drawn("link down", host.name, fault)

    def _flap(self, host: SoakHost, _: float) -> Drawn:
        times = [self._rng.random() * 1.2 for _ in range(2 * self._rng.randint(2, 6))]

        def fault() -> None:
            with self.noted("link flaps", host.name):
                for down, up in zip(times[::2], times[1::2], strict=True):
                    host.host.unplug()
                    time.sleep(down)
                    host.host.plug()
                    time.sleep(up)

        return Drawn("link flaps", host.name, fault)

    def _slow(self, host: SoakHost, seconds: float) -> Drawn:
        rate = self._rng.choice(("300kbit", "2mbit", "20mbit"))

        def fault() -> None:
            with self.noted("slow link", host.name):
                _tc(host, "add", "tbf", "rate", rate, "burst", "16k", "latency", "300ms")
                time.sleep(2 * seconds)
                _tc(host, "del")

        return Drawn("slow link", host.name, fault)

    # ---- the engine

    def _of_engine(self, engine: Engine, seconds: float) -> Drawn:
        what = self._rng.choice(("killed", "stopped", "flushed"))

        def fault() -> None:
            with self.noted(f"engine {what}", "engine"):
                if what == "killed":
                    engine.kill()
                    time.sleep(seconds)
                    engine.start()
                elif what == "stopped":
                    engine.signal(signal.SIGSTOP)
                    time.sleep(seconds)
                    engine.signal(signal.SIGCONT)
                else:
                    engine.flush()

        return Drawn(f"engine {what}", "engine", fault)

    # ---- an operator

    def _reload(self, host: SoakHost, seconds: float) -> Drawn:
        """A node is taken out of the lists of all others, and put back: the connections are cut, in good order."""

        def fault() -> None:
            with self.noted(_LISTS, host.name):
                self._list([node for node in host.nodes if node != host.host.address])
                time.sleep(seconds)
                self._list(host.nodes)

        return Drawn(_LISTS, host.name, fault)

    def _list(self, nodes: list[str]) -> None:
        with self._listing:  # two such faults at a time, of two hosts: they write the same files
            for each in self._hosts:
                each.configure(nodes)
                if each.sidecar is not None:
                    with suppress(ProcessLookupError):
                        each.sidecar.signal(signal.SIGHUP)

    def mend(self, drawn: Sequence[Drawn]) -> None:
        """What was drawn is over. A sidecar that had just been started may have read other lists, and heard no more."""
        if any(each.what == _LISTS for each in drawn):
            self._list(self._hosts[0].nodes)


def _tc(host: SoakHost, verb: str, *what: str) -> None:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{host.host.pid}/ns/net", "tc", "qdisc", verb, "dev", "eth0", "root", *what],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"tc {verb} {what}: {done.stderr}"


def can_slow_down(host: SoakHost) -> bool:
    """Whether the kernel has the queue that it takes."""
    if shutil.which("tc") is None:
        return False
    try:
        _tc(host, "add", "tbf", "rate", "1gbit", "burst", "1m", "latency", "300ms")
    except AssertionError:
        return False
    _tc(host, "del")
    return True


class Pests:
    """A thread that kills workers, stops them and lets them go on, now and then, as long as it may."""

    OFF, KILLS, ALL = range(3)

    def __init__(self, hosts: Sequence[SoakHost], rng: random.Random, log: Log) -> None:
        self._hosts, self._rng, self._log = hosts, rng, log
        self._mode = self.OFF
        self._changed = threading.Condition()
        self._idle = True
        self._ends = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pests")
        self._thread.start()

    def set(self, mode: int) -> None:
        """When this returns, nobody is stopped any more who may not be."""
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle or mode == self.ALL)
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait(self._rng.expovariate(3.0), self.KILLS):
                self._bite()
        except BaseException as exc:
            self._error = exc
        finally:
            self._be_idle()

    def _be_idle(self) -> None:
        with self._changed:
            self._idle = True
            self._changed.notify_all()

    def _wait(self, seconds: float, least: int) -> bool:
        """False: it is to end."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            end = time.monotonic() + seconds
            while not self._ends and (self._mode < least or time.monotonic() < end):
                self._changed.wait(0.05)
            self._idle = False
            return not self._ends

    def _bite(self) -> None:
        host, stops = self._rng.choice(self._hosts), self._rng.random() < 0.4
        with host.victim(self._rng) as victim, suppress(ProcessLookupError):
            if victim is None:
                return
            pid, handle = victim
            if not stops or self._mode != self.ALL:
                begin = now()
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                self._log.write("fault", what="worker killed", on=host.name, begin=begin, end=now())
                return
            begin, end = now(), time.monotonic() + self._rng.expovariate(1.5)
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
            try:
                with self._changed:
                    self._changed.wait_for(lambda: self._ends or self._mode != self.ALL, end - time.monotonic())
            finally:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGCONT)
                self._log.write("stopped", host=host.name, pid=pid, begin=begin, end=now())
                self._log.write("fault", what="worker stopped", on=host.name, begin=begin, end=now())
