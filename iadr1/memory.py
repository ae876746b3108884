"""How much memory a training takes: a model of bytes a process, used before a training begins and for the planning table."""

from dataclasses import dataclass

# Numbers of a token's width that a transformer layer keeps for the backward pass, with fused attention (Korthikanti et al. 2022, 34 bytes in bfloat16).
KEPT = 17
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers that run one after the other over so many tokens of a row, each of `width` numbers."""

    layers: int
    width: int
    tokens: int

    def kept(self, *, checkpointing: bool) -> int:
        """Numbers that one row keeps for the backward pass: all of every layer, or every layer's input and all of one."""
        layers = self.layers * (1 if checkpointing else KEPT) + KEPT
        return self.tokens * self.width * layers


@dataclass(frozen=True, slots=True)
class Load:
    """What decides about memory. `weight` and `element` are bytes of a weight and of an activation, `zero` is DeepSpeed's stage.

    `rows` are computed at once, `rollout` completions generated at once (0 in PA-SFT); `cache` counts the numbers that a token keeps in all layers.
    """

    parameters: int
    trained: int
    processes: int
    zero: int
    weight: float
    element: int
    rows: int
    stacks: tuple[Stack, ...]
    checkpointing: bool
    has_reference: bool = False
    rollout: int = 0
    cache: int = 0


def memory(load: Load) -> dict[str, float]:
    """Bytes a process: weights as they are loaded, gradients and two moments of Adam in float32, a frozen reference, and the work of a step."""
    everyone, states = (load.processes if load.zero == 3 else 1), (load.processes if load.zero >= 1 else 1)
    kept = sum(stack.kept(checkpointing=load.checkpointing) for stack in load.stacks)
    return {
        "weights": load.weight * load.parameters / everyone,
        "gradients": 4 * load.trained / (load.processes if load.zero >= 2 else 1),
        "Adam": 8 * load.trained / states,
        "reference": load.weight * load.parameters / everyone if load.has_reference else 0.0,
        "activations": float(load.rows * kept * load.element),
        "generation": float(load.rollout * load.stacks[0].tokens * load.cache * load.element),
    }
