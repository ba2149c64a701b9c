"""A run: episodes, in each of which things go wrong, are mended, and all must be well again.

wrong    one to three faults at the same time, while workers call, reset, are killed and stopped
mended   no resets, nobody killed: the nodes come to one stamp and take each other to be live; what one host
         computes, all come to have
whole    what all ask for at once is computed once; workers go on, reset, and are killed now and then, with nothing else
         wrong: once in the cluster
"""

from __future__ import annotations

import argparse
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.net.network import Switch
from tests.procs import WATCHDOG

from . import goods
from .engine import Engine
from .events import Control, Log, now
from .faults import POWER, Faults, Pests, can_slow_down
from .hosts import Plan, SoakHost


class Failed(Exception):  # noqa: N818
    """It does not come to where it must; what is said is why."""


class Run:
    """One soak. What is wrong is in `found`, as (what, text)."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.found: list[tuple[str, str]] = []
        self.sound: dict[str, Any] = {}  # the last word of each host
        self.resumed: dict[str, str] = {}  # the logs of the sidecars
        self.episodes = self.probes = 0
        self.parted = 0  # times at which nodes parted although nothing was done to them
        self.waits: list[float] = []  # seconds from the end of the faults until all was well
        self.log = Log(directory)
        self._control = Control(directory)
        self._directory, self._relay = directory, options.relay
        self._rng = random.Random(f"{options.seed} episodes")
        self._pests_rng = random.Random(f"{options.seed} pests")
        self._pool = ThreadPoolExecutor(2 * options.nodes + 4)
        self._plan = Plan(
            directory=directory,
            seed=options.seed,
            addresses=[f"10.9.0.{number}" for number in range(1, options.nodes + 1)],
            workers=options.workers,
            lease_timeout=options.lease_timeout,
            engine="",
            replicate=options.replicate,
            trace=options.trace,
        )
        self.hosts: list[SoakHost] = []

    def run(self, seconds: float) -> None:
        """All of it."""
        with ExitStack() as stack:
            stack.callback(self._pool.shutdown, wait=False, cancel_futures=True)
            engine = self._boot(stack)
            pests = Pests(self.hosts, self._pests_rng, self.log)
            stack.callback(pests.end)
            faults = Faults(self.hosts, self._rng, self.log, can_slow_down(self.hosts[0]), engine, self._replace)
            try:
                end = time.monotonic() + seconds
                self._control.resets, self._control.word = True, Control.GO
                while time.monotonic() < end:
                    self._episode(faults, pests)
                self._end(pests)
            except Failed as failed:
                self.found.append(("not well", f"at {now()}: {failed}"))
            except Exception:  # a host that does not answer, a fault that could not be made: judge what there is
                self.found.append(("not well", f"at {now()}: {traceback.format_exc()}"))
            finally:
                for host in self.hosts:
                    self.resumed[host.name] = host.sidecar_log()

    def _end_all(self) -> None:
        with ExitStack() as stack:  # all of them, whatever goes wrong with one
            for host in self.hosts:
                stack.callback(host.end)

    def _replace(self, lost: SoakHost) -> None:
        """Switch a host on again."""
        self.resumed[lost.name] = lost.sidecar_log()
        host = lost.again()
        self.hosts[self.hosts.index(lost)] = host
        host.meet()
        host.start_sidecar()

    def _boot(self, stack: ExitStack) -> Engine | None:
        switch = Switch()
        stack.callback(switch.end)
        engine = None
        if self._relay == "redis":
            engine = Engine(switch, self._directory)
            stack.callback(engine.end)
            self._plan = self._plan._replace(engine=engine.url)
        stack.callback(self._end_all)
        for number in range(1, len(self._plan.addresses) + 1):
            self.hosts.append(SoakHost(switch, number, self._plan, self.log))
        for host in self.hosts:
            host.meet()
        self._all(SoakHost.start_sidecar)
        self._be_well()
        return engine

    def _all(self, what: Callable[[SoakHost], Any]) -> list[Any]:
        """Of each host, at once."""
        return [done.result(WATCHDOG + 30) for done in [self._pool.submit(what, host) for host in self.hosts]]

    # ---- an episode

    def _episode(self, faults: Faults, pests: Pests) -> None:
        self.episodes += 1
        pests.set(Pests.ALL)
        drawn = faults.draw(self._rng.choice((1, 1, 1, 2, 2, 3)))
        under_way = [self._pool.submit(each.fault) for each in drawn]
        if self._rng.random() < 0.3 and drawn[0].what != POWER:
            self._admin_resets(self._rng.choice(self.hosts))
        for done in under_way:
            done.result(4 * WATCHDOG)
        faults.mend(drawn)
        pests.set(Pests.OFF)
        self._control.resets = False
        mended = time.monotonic()
        self._be_well()
        self.waits.append(time.monotonic() - mended)
        partings = self._partings()
        self._come_through(partings)
        with self._whole(partings):
            self._ask_at_once()
            self._control.resets = True
            pests.set(Pests.KILLS)
            time.sleep(min(self._rng.expovariate(0.6), 4.0))
            pests.set(Pests.OFF)

    @contextmanager
    def _whole(self, partings: int) -> Iterator[None]:
        """Nothing is wrong in this, if there have been so many partings by its end."""
        begin = now()
        yield
        if self._partings() == partings:
            self.log.write("whole", begin=begin, end=now())
        else:
            self.parted += 1

    def _partings(self) -> int:
        """How often sidecars have said that they lost another node, or the engine. All of them are well when this is
        first asked; on a machine that stands still for too long, they part all the same."""
        logs = [host.sidecar_log() for host in self.hosts]
        return sum(log.count("is not connected any more") + log.count("is lost (") for log in logs)

    def _admin_resets(self, host: SoakHost) -> None:
        begin = now()
        self.log.write("resets", who=f"{host.name}/admin", cache="roomy", at=begin)
        done = host.admin("reset", "roomy", "--wait", "0.5s")
        good = {0: "yes"}.get(done.returncode, "")
        if not good:
            text = done.stdout + done.stderr
            good = (
                "callback"
                if "up to date" in text
                else "unconfirmed"
                if "applied" in text or "wait" in text
                else "error"
            )
        self.log.write(
            "reset", who=f"{host.name}/admin", host=host.name, cache="roomy", begin=begin, end=now(), stamp=None,
            done=good, text="" if good in ("yes", "callback") else done.stdout + done.stderr,
        )  # fmt: skip

    # ---- all is well

    def _be_well(self) -> None:
        """Return once each node takes all others to be live, and all stand at one stamp, with each cache."""
        names = {host.node for host in self.hosts}
        end = time.monotonic() + WATCHDOG
        while True:
            found = dict(zip((host.node for host in self.hosts), self._all(SoakHost.standing), strict=True))
            if all(
                {name for name, state in of["nodes"].items() if state == "live"} >= names - {host}
                for host, each in found.items()
                for of in each.values()
            ) and all(len({tuple(each[cache]["stamp"]) for each in found.values()}) == 1 for cache in goods.MANY):
                return
            if time.monotonic() > end:
                raise Failed(f"the nodes are not well {WATCHDOG:g} s after all was mended: {found}")
            time.sleep(0.05)

    def _come_through(self, partings: int) -> None:
        """What one host computes comes to all. A link that was mended may take seconds until it is found to be so."""
        for host in self.hosts:
            while not self._comes_from(host, partings):
                pass

    def _comes_from(self, host: SoakHost, partings: int) -> bool:
        """False: a reset that was on its way when they were turned off has come in between."""
        self.probes += 1
        key, stamp = f"probe {self.probes}", host.standing()["roomy"]["stamp"]
        made = host.ask("call", cache="roomy", key=key, how="cached")  # in the other there may be no room
        return all(self._until_there(other, "roomy", key, made["id"], stamp, partings) for other in self.hosts)

    def _ask_at_once(self) -> None:
        """What all ask for at once is computed once: the judge looks."""
        for cache in goods.MANY:
            self.probes += 1
            key = f"probe {self.probes}"
            self._all(lambda host, cache=cache, key=key: host.ask("call", cache=cache, key=key, how="cached"))

    def _until_there(self, host: SoakHost, cache: str, key: str, id: str, stamp: list[Any], partings: int) -> bool:
        end = time.monotonic() + WATCHDOG
        # With an engine that hands out entries on demand it is enough that nobody else computes it.
        how = "cached" if self._plan.engine and self._plan.replicate == "on_demand" else "get"
        while (found := host.ask("call", cache=cache, key=key, how=how)) is None:
            if host.standing()[cache]["stamp"] != stamp:
                return False
            if time.monotonic() > end:
                known = {each.name: each.ask("call", cache=cache, key=key, how="get") for each in self.hosts}
                stands = {each.name: each.standing() for each in self.hosts}
                sound = {each.name: each.ask("sound") for each in self.hosts}
                raise Failed(
                    f"{host.name}: {key} of {cache}, computed as {id} at {stamp}, does not come in {WATCHDOG:g} s; "
                    f"known as {known}; {stands}; {sound}"
                )
            time.sleep(0.005)
        if found["id"] != id and self._partings() == partings:
            self.found.append(("once", f"{host.name} has {key} of {cache} as {found}, not as {id}"))
        return True

    # ---- the end

    def _end(self, pests: Pests) -> None:
        pests.set(Pests.OFF)
        self._control.resets = False
        self._be_well()
        self._control.word = Control.END
        for host, ended in zip(self.hosts, self._all(SoakHost.until_alone), strict=True):
            if not ended:
                raise Failed(f"{host.name}: a worker does not end: {host.crew_log()[-4000:]}")
        self._be_well()
        self._all(self._until_sound)
        for host in self.hosts:
            host.end_sidecar()
        for host in self.hosts:
            host.ask("destroy")
            host.dismiss()
            self.found += [("left behind", f"{host.name}: /dev/shm/{name}") for name in host.left_in_memory()]
            self.found += [("left behind", f"{host.name}: {command}") for command in host.left_running()]

    def _until_sound(self, host: SoakHost) -> None:
        """Nothing is under way any more. What has just ended may be passed on for a moment yet."""
        end = time.monotonic() + WATCHDOG / 3
        while True:
            self.sound[host.name] = found = host.ask("sound")
            left = {name: each["left"] for name, each in found.items() if any(each["left"].values())}
            others = {name: each["processes"] for name, each in found.items() if each["processes"] != 1}
            if not left and not others:
                break
            if time.monotonic() > end:
                if self._plan.trace and host.sidecar is not None:
                    host.sidecar.signal(signal.SIGUSR2)
                    time.sleep(1)
                self.found.append(
                    ("leak", f"{host.name}: {left}; attached processes (of 1, the sidecar aside): {others}")
                )
                break
            time.sleep(0.05)
        for name, each in found.items():
            self.found += [("verify", f"{host.name}, {name}: {fault}") for fault in each["damage"]]
