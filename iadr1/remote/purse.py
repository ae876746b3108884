"""A hard budget: what was paid, what requests under way may cost, and whether one more can be afforded."""

import math
from dataclasses import dataclass, field

from iadr1.remote.replies import Reply


@dataclass(frozen=True, slots=True)
class Price:
    """Money for a million tokens, in and out."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass(slots=True)
class Purse:
    """Money that may be spent; a request is paid from it before it is sent, at the most that it can cost."""

    price: Price = field(default_factory=Price)
    budget: float = math.inf
    spent: float = 0.0
    reserved: float = 0.0

    def reserve(self, tokens_in: int, most_out: int) -> bool:
        """Set aside what a request may cost at most; False where that is more than is left."""
        most = self.price.of(tokens_in, most_out)
        if self.spent + self.reserved + most > self.budget:
            return False
        self.reserved += most
        return True

    def settle(self, tokens_in: int, most_out: int, reply: Reply | None) -> None:
        """Pay for the reply to a request that was reserved by the same figures; a server that counts no tokens is paid what was expected."""
        self.reserved = max(0.0, self.reserved - self.price.of(tokens_in, most_out))
        if reply is not None:
            self.spent += self.cost(reply, tokens_in)

    def cost(self, reply: Reply, tokens_in: int) -> float:
        """What a reply has cost."""
        return self.price.of(reply.tokens_in or tokens_in, reply.tokens_out)
