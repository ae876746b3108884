"""What a training of a published backbone takes on so many GPUs: memory, seconds a step, hours and cost, by a stated model.

Nothing here is measured. Memory is that of iadr1/memory.py. Time is arithmetic over the speed that is assumed to be reached: 2 operations a
parameter and token forward, twice that backward, and once more forward where activations are recomputed; a decoded token waits for reading the
weights and the cache. Attention between tokens, the reading of data, evaluation and checkpoints are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from iadr1.memory import GIB, Load, Stack, memory
from iadr1.report_tables import table
from iadr1.shapes import SHAPES, Shape

MODES = {"full": "full, all on every GPU", "lora": "LoRA, r 16", "zero3": "full, ZeRO-3"}
STAGES = {"pa_sft": "PA-SFT", "sc_grpo": "SC-GRPO"}
COUNTS = (1, 2, 4, 8)
LORA_RANK = 16
# What of a GPU is left to a process: its context, the allocator's holes and the buffers of collectives take the rest.
USABLE = 0.92


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU: bytes, bfloat16 operations a second without sparsity, bytes a second of its memory and to its neighbours."""

    name: str
    capacity: float
    speed: float
    bandwidth: float
    link: float


GPUS = {
    "a100-80g": Gpu("A100 80 GB", 80e9, 312e12, 2.0e12, 300e9),
    "h200-141g": Gpu("H200 141 GB", 141e9, 989e12, 4.8e12, 450e9),
}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the table assumes. `mfu` and `efficiency` are the reached shares of a GPU's speed and of its bandwidths.

    The rest is the paper's: rows, epochs, rows and completions of a step, 4 completions a prompt; `said` are the tokens of an answer, `asked`
    those of a prompt besides its image.
    """

    mfu: float = 0.35
    efficiency: float = 0.6
    pa_sft_rows: int = 2900
    epochs: int = 2
    pa_sft_batch: int = 8
    sc_grpo_rows: int = 3000
    completions: int = 24
    group: int = 4
    asked: int = 60
    said: int = 200
    limit: int = 512


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes a GPU, seconds a step, and steps of a training."""

    memory: float
    step: float
    steps: int

    @property
    def hours(self) -> float:
        """Of the clock."""
        return self.step * self.steps / 3600


def estimate(shape: Shape, gpu: Gpu, count: int, mode: str, stage: str, assumed: Assumed) -> Estimate:
    """The estimate of one training with one row at once, the least that it can be run with."""
    rows = -(-(assumed.pa_sft_batch if stage == "pa_sft" else assumed.completions) // count)
    needed = memory(_load(shape, count, mode, stage, rows, assumed))
    step = _pa_sft_step if stage == "pa_sft" else _sc_grpo_step
    return Estimate(sum(needed.values()), step(shape, gpu, count, mode, rows, assumed), steps(stage, assumed))


def steps(stage: str, assumed: Assumed) -> int:
    """Steps of a training of the paper's size."""
    if stage == "pa_sft":
        return -(-assumed.pa_sft_rows // assumed.pa_sft_batch) * assumed.epochs
    return assumed.sc_grpo_rows // (assumed.completions // assumed.group)


def _load(shape: Shape, count: int, mode: str, stage: str, rows: int, assumed: Assumed) -> Load:
    trained = lora_parameters(shape) if mode == "lora" else shape.total
    extra = trained if mode == "lora" else 0
    longest = shape.image_tokens + assumed.asked + (assumed.said if stage == "pa_sft" else assumed.limit)
    text, tower = shape.text, shape.vision
    stacks = (
        Stack(text["num_hidden_layers"], text["hidden_size"], longest),
        Stack(_depth(shape), tower.get("embed_dim", tower["hidden_size"]), shape.patches),
    )
    return Load(
        shape.total + extra, trained, count, zero=3 if mode == "zero3" else 0, weight=4, element=2, rows=1, stacks=stacks, checkpointing=True,
        has_reference=stage == "sc_grpo" and mode != "lora", rollout=rows if stage == "sc_grpo" else 0,
        cache=shape.cache_width * text["num_hidden_layers"],
    )  # fmt: skip


def _depth(shape: Shape) -> int:
    return int(shape.vision.get("depth") or shape.vision["num_hidden_layers"])


def lora_parameters(shape: Shape) -> int:
    """Parameters of adapters on the linear layers of the language model and the tower: r times inputs and outputs of each."""
    text, tower = shape.text, shape.vision
    wide, inner, shared = text["hidden_size"], text["intermediate_size"], shape.cache_width
    head = shape.cache_width // 2 // text["num_key_value_heads"]
    queries = head * text["num_attention_heads"]
    language = 2 * (wide + queries) + (2 * wide + shared) + 3 * (wide + inner)
    seen = tower.get("embed_dim", tower["hidden_size"])
    vision = 8 * seen + 2 * (seen + tower.get("intermediate_size", 4 * seen))
    return LORA_RANK * (text["num_hidden_layers"] * language + _depth(shape) * vision)


def _forward(shape: Shape, tokens: float, images: float) -> float:
    """Operations of a forward pass over so many tokens of the language model and images of the tower."""
    seen = shape.parameters["projector"] * shape.image_tokens + shape.parameters["vision"] * shape.patches
    return 2.0 * (shape.computed * tokens + seen * images)


def _learning(shape: Shape, gpu: Gpu, mode: str, rows: int, tokens: float, assumed: Assumed) -> float:
    """Seconds of forward, recomputation and backward; adapters need no gradients of the weights below them."""
    passes = 3 if mode == "lora" else 4
    return passes * _forward(shape, rows * tokens, rows) / (assumed.mfu * gpu.speed)


def _talking(shape: Shape, gpu: Gpu, count: int, mode: str, passes: int, assumed: Assumed) -> float:
    """Seconds of collectives, none of them hidden behind the computation: gradients once a step, and with ZeRO-3 weights once a pass."""
    if count == 1:
        return 0.0
    trained = lora_parameters(shape) if mode == "lora" else shape.total
    moved = 2 * 2 * trained + (2 * shape.total * passes if mode == "zero3" else 0)
    return moved * (count - 1) / count / (assumed.efficiency * gpu.link)


def _pa_sft_step(shape: Shape, gpu: Gpu, count: int, mode: str, rows: int, assumed: Assumed) -> float:
    tokens = shape.image_tokens + assumed.asked + assumed.said
    return _learning(shape, gpu, mode, rows, tokens, assumed) + _talking(shape, gpu, count, mode, 3 * rows, assumed)


def _sc_grpo_step(shape: Shape, gpu: Gpu, count: int, mode: str, rows: int, assumed: Assumed) -> float:
    prompt = shape.image_tokens + assumed.asked
    tokens = prompt + assumed.said
    rollout = _forward(shape, rows * prompt, rows) / (assumed.mfu * gpu.speed) + _decoding(shape, gpu, rows, prompt, assumed)
    reference = _forward(shape, rows * tokens, rows) / (assumed.mfu * gpu.speed)
    return (
        rollout + reference + _learning(shape, gpu, mode, rows, tokens, assumed) + _talking(shape, gpu, count, mode, 4 * rows + 1, assumed)
    )


def _decoding(shape: Shape, gpu: Gpu, rows: int, prompt: int, assumed: Assumed) -> float:
    """Seconds until the answers of all rows are said, a token of each after the other: weights and caches are read once a token."""
    cache = 2 * rows * (prompt + assumed.said / 2) * shape.cache_width * shape.text["num_hidden_layers"]
    reading = (2 * shape.computed + cache) / (assumed.efficiency * gpu.bandwidth)
    computing = 2 * shape.computed * rows / (assumed.mfu * gpu.speed)
    return assumed.said * max(reading, computing)


def plan_table(gpu: Gpu, stage: str, mode: str, *, price: float, assumed: Assumed, shapes: Sequence[Shape] = SHAPES) -> str:
    """One row a backbone, one column a number of GPUs: GiB a GPU, seconds a step, hours, and the cost at `price` an hour of a GPU."""
    rows = [
        [shape.hub.rpartition("/")[2], *(_cell(shape, gpu, count, mode, stage, price, assumed) for count in COUNTS)] for shape in shapes
    ]
    return table([f"{gpu.name}, {MODES[mode]}", *(f"{count} GPU{'s' if count > 1 else ''}" for count in COUNTS)], rows)


def _cell(shape: Shape, gpu: Gpu, count: int, mode: str, stage: str, price: float, assumed: Assumed) -> str:
    found = estimate(shape, gpu, count, mode, stage, assumed)
    if found.memory > USABLE * gpu.capacity:
        return f"needs {found.memory / GIB:.0f} GiB"
    return f"{found.memory / GIB:.0f} GiB, {found.step:.2g} s, {found.hours:.2g} h, {found.hours * count * price:.2g}"
