"""What a build costs: an estimate before it starts, and the sum of what was asked."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from iadr1.expert_ad.build import ATTEMPTS
from iadr1.expert_ad.pairs import Pair
from iadr1.expert_ad.replies import Kept
from iadr1.expert_ad.teachers import Comparison, Distilled, Record, Reply, Request, parse


@dataclass(frozen=True, slots=True)
class Cost:
    """Requests, and the tokens that they take and that their replies have."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def plus(self, tokens_in: int, tokens_out: int) -> "Cost":
        """The cost with one more request."""
        return Cost(self.requests + 1, self.tokens_in + tokens_in, self.tokens_out + tokens_out)

    def money(self, price: tuple[float, float]) -> float:
        """At a price for a million tokens, in and out."""
        return (self.tokens_in * price[0] + self.tokens_out * price[1]) / 1e6

    def said(self, price: tuple[float, float]) -> str:
        """In words."""
        money = f", {self.money(price):.2f} at the price given" if any(price) else ""
        return f"{self.requests} requests, {self.tokens_in} tokens in and {self.tokens_out} out{money}"


def estimate(pairs: Iterable[Pair], teacher: Kept) -> Cost:
    """What is still to be asked about pairs, from the sizes of images and texts; what was answered costs nothing."""
    cost = Cost()
    for pair in pairs:
        if teacher.needs_reference and pair.reference is None:
            continue
        for request in _open(pair, teacher):
            cost = cost.plus(*teacher.expected(request))
    return cost


def paid(replies: Iterable[Reply]) -> Cost:
    """What replies have cost."""
    cost = Cost()
    for reply in replies:
        cost = cost.plus(reply.tokens_in, reply.tokens_out)
    return cost


def _open(pair: Pair, teacher: Kept) -> list[Request]:
    """The requests about a pair that have no reply yet; what the second depends on may not be known yet."""
    compare, comparison = _walked(Comparison, Request("compare", pair), teacher)
    if compare:
        return [compare, Request("distil", pair)]
    distil, _ = _walked(Distilled, Request("distil", pair, comparison), teacher) if comparison else (None, None)
    return [distil] if distil else []


def _walked(record: type[Record], request: Request, teacher: Kept) -> tuple[Request | None, Record | None]:
    """The first attempt without a reply, or what the replies hold; neither where every attempt was answered with nonsense."""
    for attempt in range(1, ATTEMPTS + 1):
        tried = replace(request, attempt=attempt)
        reply = teacher.kept(teacher.key(tried))
        found = parse(record, reply.text) if reply else None
        if reply is None or found is not None:
            return (tried if reply is None else None), found
    return None, None
