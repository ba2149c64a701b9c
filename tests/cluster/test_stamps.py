"""The order of resets, attacked by every order of resets, messages, restarts and losses that hypothesis finds.

The model has what the segments of some hosts hold: where each stands, when it was last reset on the host itself, and
when each of its entries was computed (by one clock that no node can see).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coopshm.cluster.relay import Stamp, Standing
from coopshm.cluster.stamps import SEEN_MAX, Claim, Heard, History

UNRESET = Stamp(0, b"1", "")
VERSIONS = (b"1", b"2", b'"a"')


@dataclass
class Node:
    name: str
    segment: int = 0
    stamp: Stamp = UNRESET
    own: int = 0
    own_at: int = -1
    generation: int = 1
    reset_at: int = -1  #: when the last reset was made that has been applied here, as far as the sidecar can know
    entries: list[int] = field(default_factory=list)  # when they were computed
    history: History = field(default_factory=History)
    adopting: tuple[Claim, Standing] | None = None

    @property
    def origin(self) -> str:
        return f"{self.name}#{self.segment}"

    def standing(self) -> Standing:
        return Standing(self.stamp, self.origin, self.own, self.generation)

    def flip(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self.generation += 1
        self.entries = []

    def hear(self, claim: Claim) -> Heard:
        return self.history.hear(self.standing(), claim)


class Resets(RuleBasedStateMachine):
    """Hosts reset, talk, forget, fail and are lost; nobody may hold what is older than a reset made or applied
    on it."""

    @initialize(count=st.integers(2, 5), versions=st.lists(st.sampled_from(VERSIONS), min_size=5, max_size=5))
    def begin(self, count: int, versions: list[bytes]) -> None:
        self.clock = 0
        self.nodes = [Node(f"n{i}", stamp=Stamp(0, versions[i], "")) for i in range(count)]
        self.wire: list[tuple[int, Claim]] = []  # (to, what): delivered in any order, any number of times, or never
        self.made_at: dict[Stamp, int] = {}

    def pick(self, number: int) -> Node:
        return self.nodes[number % len(self.nodes)]

    @rule(number=st.integers(0, 4), version=st.sampled_from(VERSIONS))
    def reset_here(self, number: int, version: bytes) -> None:
        self.clock += 1
        self.own_reset(self.pick(number), Stamp(self.pick(number).stamp.counter + 1, version, self.pick(number).origin))

    def own_reset(self, node: Node, stamp: Stamp) -> None:
        node.flip(stamp)
        node.own = stamp.counter
        node.own_at = node.reset_at = self.made_at[stamp] = self.clock

    @rule(number=st.integers(0, 4))
    def compute(self, number: int) -> None:
        self.clock += 1
        self.pick(number).entries.append(self.clock)

    @rule(source=st.integers(0, 4), to=st.integers(0, 4))
    def write(self, source: int, to: int) -> None:
        if self.pick(source).stamp == self.pick(to).stamp:
            self.pick(to).entries.extend(self.pick(source).entries)

    @rule(source=st.integers(0, 4), to=st.integers(0, 4))
    def say(self, source: int, to: int) -> None:
        node = self.pick(source)
        self.wire.append((to % len(self.nodes), node.history.claim(node.standing())))

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), keep=st.booleans())
    def arrive(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.wire) - 1))
        target, claim = self.wire[index] if keep else self.wire.pop(index)
        self.nodes[target].hear(claim)

    @rule(number=st.integers(0, 4), patient=st.booleans())
    def begin_adopting(self, number: int, patient: bool) -> None:
        """What follows may happen before the callback is through."""
        node = self.pick(number)
        claim = node.history.wanted(node.standing(), patient)
        node.adopting = None if claim is None else (claim, node.standing())

    @rule(number=st.integers(0, 4), told=st.booleans())
    def finish_adopting(self, number: int, told: bool) -> None:
        """`told`: the sidecar lives to see it."""
        node = self.pick(number)
        if node.adopting is None:
            return
        (claim, instead_of), node.adopting = node.adopting, None
        if node.standing() == instead_of:  # else: MovedError
            self.clock += 1
            self.apply(node, claim)
            if not told:
                self.forget(node)

    def forget(self, node: Node) -> None:
        """Its sidecar ends. The segment still says where it stands, and which reset was made on it last."""
        node.history = History()
        node.reset_at = max(node.own_at, self.made_at.get(node.stamp, -1))

    @rule(source=st.integers(0, 4), to=st.integers(0, 4), patient=st.booleans())
    def follow(self, source: int, to: int, patient: bool) -> None:
        """All of the above at once, so that short histories go far; and the entries come along."""
        self.pick(to).hear(self.pick(source).history.claim(self.pick(source).standing()))
        self.begin_adopting(to, patient)
        self.finish_adopting(to, True)
        self.write(source, to)

    @rule(hosts=st.permutations(range(5)), version=st.sampled_from(VERSIONS), patient=st.booleans())
    def pass_over(self, hosts: list[int], version: bytes, patient: bool) -> None:
        """One resets and computes, another one resets, not knowing of that; a third one hears of both."""
        one, other, third = hosts[:3]
        self.reset_here(one, version)
        self.compute(one)
        self.reset_here(other, version)
        self.follow(other, third, patient)
        self.follow(one, third, patient)

    def apply(self, node: Node, claim: Claim) -> None:
        assert claim.stamp > node.stamp
        if claim.stamp.node == node.origin:
            self.own_reset(node, claim.stamp)
        else:
            node.flip(claim.stamp)
            node.reset_at = max(node.reset_at, self.made_at.get(claim.stamp, -1))

    @rule(number=st.integers(0, 4))
    def restart_sidecar(self, number: int) -> None:
        self.forget(self.pick(number))
        self.pick(number).adopting = None

    @rule(number=st.integers(0, 4))
    def start_cold(self, number: int) -> None:
        self.pick(number).flip(self.pick(number).stamp)

    @rule(number=st.integers(0, 4), version=st.sampled_from(VERSIONS), sidecar_too=st.booleans())
    def lose_segment(self, number: int, version: bytes, sidecar_too: bool) -> None:
        node = self.pick(number)
        node.segment += 1
        node.flip(Stamp(0, version, ""))
        node.own, node.own_at, node.reset_at = 0, -1, -1
        if sidecar_too:
            node.history = History()

    @invariant()
    def nothing_older_than_a_reset_that_was_applied_here(self) -> None:
        for node in getattr(self, "nodes", ()):
            assert all(computed > node.reset_at for computed in node.entries), node

    def teardown(self) -> None:
        """However it went: once all hear each other, they come to stand together, in a number of rounds."""
        nodes = getattr(self, "nodes", [])
        for _ in range(len(nodes) + 2):
            claims = [node.history.claim(node.standing()) for node in nodes]
            for node in nodes:
                for claim in claims:
                    node.hear(claim)
            quiet = True
            for node in nodes:
                while (claim := node.history.wanted(node.standing())) is not None:
                    quiet = False
                    self.clock += 1
                    self.apply(node, claim)
            if quiet:
                break
        assert len({node.stamp for node in nodes}) <= 1
        for source in nodes:
            for target in nodes:
                target.entries.extend(source.entries)
                self.nothing_older_than_a_reset_that_was_applied_here()


# Not shrunk: that may take longer than the watchdog allows a test.
Resets.TestCase.settings = settings(
    max_examples=300, stateful_step_count=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
TestResets = Resets.TestCase


def test_simultaneous_resets_end_in_one_that_includes_both() -> None:
    a, b = Node("a"), Node("b")
    for node in (a, b):
        node.flip(Stamp(1, b"1", node.origin))
        node.own = 1
    assert a.hear(b.history.claim(b.standing())) is Heard.AHEAD
    wanted = a.history.wanted(a.standing())
    assert wanted == Claim(Stamp(2, b"1", a.origin), {b.origin: 1, a.origin: 1})
    a.flip(wanted.stamp)
    a.own = 2
    claim = a.history.claim(a.standing())
    assert (claim.covers(a.origin), claim.covers(b.origin)) == (2, 1)
    assert b.hear(claim) is Heard.AHEAD
    assert b.history.wanted(b.standing()) == claim
    assert a.hear(Claim(Stamp(1, b"1", b.origin), {})) is Heard.BEHIND


def follow(node: Node, claim: Claim) -> Claim:
    """`node` hears `claim`, and goes where it wants to; what it then says."""
    node.hear(claim)
    wanted = node.history.wanted(node.standing())
    assert wanted is not None
    node.flip(wanted.stamp)
    if wanted.stamp.node == node.origin:
        node.own = wanted.stamp.counter
    return node.history.claim(node.standing())


def reset(node: Node, counter: int) -> Claim:
    node.history.claim(node.standing())
    node.flip(Stamp(counter, b"1", node.origin))
    node.own = counter
    return node.history.claim(node.standing())


def test_what_is_adopted_may_be_seen_told_and_surpassed_before_the_adoption_returns() -> None:
    """A raised stamp that was taken for a worker's reset would not include what it was raised over, and so be raised
    over in turn, for ever."""
    a, b, c = Node("a"), Node("b"), Node("c")
    theirs, mine = reset(a, 5), reset(b, 3)
    b.hear(theirs)
    wanted = b.history.wanted(b.standing())
    assert wanted == Claim(Stamp(6, b"1", b.origin), {a.origin: 5, b.origin: 3})
    b.flip(wanted.stamp)
    b.own = 6
    told = b.history.claim(b.standing())  # by whoever sees it first
    assert (told.covers(a.origin), told.covers(b.origin)) == (5, 6)
    assert b.hear(theirs) is Heard.BEHIND
    assert b.hear(mine) is Heard.BEHIND
    assert b.hear(told) is Heard.SAME
    assert b.history.claim(b.standing()) == told
    theirs = Claim(Stamp(7, b"1", c.origin), {a.origin: 5, b.origin: 6})
    assert b.hear(theirs) is Heard.AHEAD
    assert b.history.wanted(b.standing()) == theirs
    assert follow(a, told) == Claim(told.stamp, {a.origin: 5, b.origin: 6})  # and does not raise


def test_who_has_applied_a_reset_does_not_go_where_it_is_not_included_and_leaves_the_raise_to_its_maker() -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    follow(b, reset(a, 5))
    theirs = reset(c, 6)  # not knowing of a's
    assert b.hear(theirs) is Heard.AHEAD
    assert b.history.wanted(b.standing(), patient=True) is None
    assert b.history.hesitates
    raised = follow(a, theirs)
    assert raised == Claim(Stamp(7, b"1", a.origin), {a.origin: 5, c.origin: 6} | {a.origin: 7})
    b.hear(raised)
    assert b.history.wanted(b.standing(), patient=True) == raised
    assert not b.history.hesitates


def test_if_the_maker_is_gone_another_one_raises() -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    follow(b, reset(a, 5))
    raised = follow(b, reset(c, 6))
    assert raised == Claim(Stamp(7, b"1", b.origin), {a.origin: 5, c.origin: 6, b.origin: 7})
    c.hear(raised)
    assert c.history.wanted(c.standing(), patient=True) == raised


def test_a_reset_here_includes_what_the_host_stood_at_and_another_segment_includes_nothing() -> None:
    a, b = Node("a"), Node("b")
    follow(b, reset(a, 5))
    assert reset(b, 6).seen == {a.origin: 5, b.origin: 6}
    b.segment, b.own = 1, 0
    assert reset(b, 1).seen == {b.origin: 1}


def test_a_sidecar_that_has_forgotten_learns_again_from_who_stands_at_the_same() -> None:
    a, b = Node("a"), Node("b")
    follow(b, reset(a, 5))
    mine = reset(b, 6)
    b.history = History()
    assert b.history.claim(b.standing()).seen == {b.origin: 6}
    assert b.hear(mine) is Heard.SAME
    assert b.history.claim(b.standing()) == mine


def test_a_stamp_includes_itself_whoever_tells_of_it() -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    follow(b, Claim(reset(a, 5).stamp, {}))
    assert reset(b, 6).covers(a.origin) == 5
    assert follow(a, Claim(Stamp(9, b"1", c.origin), {})).seen == {a.origin: 10, c.origin: 9}


def test_what_is_remembered_of_others_is_bounded_and_keeps_what_counts() -> None:
    node = Node("a")
    node.flip(Stamp(3, b"1", node.origin))
    node.own = 3
    crowd = {f"gone#{i}": 10 + i for i in range(2 * SEEN_MAX)}
    assert node.hear(Claim(node.stamp, crowd)) is Heard.SAME
    seen = node.history.claim(node.standing()).seen
    assert len(seen) == SEEN_MAX
    assert seen[node.origin] == 3
    assert f"gone#{2 * SEEN_MAX - 1}" in seen
    assert "gone#0" not in seen
