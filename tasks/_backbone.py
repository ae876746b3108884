"""Teach the small backbone to see, from random weights, on general pictures: `make backbone` (python -m tasks._backbone), about 90 minutes on two cores.

Three parts, each resumed where it was killed: draw the picture book; teach the vision tower what is where; teach tower and language model together to answer
questions. The result is backbones/small: safetensors, tokenizer, processor. Needed only to change the backbone: its weights ship with the project.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from iadr1 import picture_book, small_backbone

if TYPE_CHECKING:
    import torch

INTO, SCRATCH = Path("backbones/small"), Path(".checkpoints/backbone")
SEED, CHUNK, SAVE_EVERY = 20251121, 500, 100


@dataclass(frozen=True)
class Book:
    """Pages as arrays: images uint8 [N, S, S, 3], figure maps bool [N, C, C, F], labels int64 [N, 4], and each page's words."""

    images: np.ndarray
    maps: np.ndarray
    labels: np.ndarray
    pages: list[picture_book.Picture]


@dataclass(frozen=True)
class Lesson:
    """One part of the teaching: its loss as a function of (state, random generator), steps, and learning rate at its peak."""

    name: str
    loss: Callable[[np.random.Generator], tuple["torch.Tensor", dict[str, float]]]
    steps: int
    rate: float


def draw_chunk(seed: int) -> str:
    """Draw CHUNK pages into one file, unless it is there."""
    path = SCRATCH / f"pages-{seed}.npz"
    if not path.is_file():
        rng = np.random.default_rng(seed)
        pages = [picture_book.picture(rng) for _ in range(CHUNK)]
        arrays: dict[str, Any] = {
            "images": np.stack([page.image for page in pages]),
            "maps": np.stack([small_backbone.figure_map(page) for page in pages]),
            "labels": np.stack([small_backbone.page_labels(page) for page in pages]),
            "words": np.array([json.dumps([page.body, page.surface, page.colour, page.figures]) for page in pages]),
        }
        beside = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(beside, **arrays)
        beside.replace(path)
    return str(path)


def draw_book(chunks: int) -> Book:
    """The whole picture book, drawn on all cores."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        paths = list(tqdm(pool.map(draw_chunk, range(SEED, SEED + chunks)), total=chunks, desc="drawing", unit_scale=CHUNK, unit="page"))
    parts = [dict(np.load(path)) for path in paths]
    images, maps, labels, words = (np.concatenate([part[key] for part in parts]) for key in ("images", "maps", "labels", "words"))
    return Book(images, maps, labels, [_page(text) for text in words])


def _page(text: str) -> picture_book.Picture:
    body, surface, colour, figures = json.loads(text)
    return picture_book.Picture(np.empty(0), body, surface, colour, tuple((name, tuple(cell)) for name, cell in figures), ())


def turned(images: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A batch turned by a random quarter and mirrored at random, pictures and maps alike."""
    quarter, mirror = int(rng.integers(4)), rng.random() < 0.5
    images, maps = np.rot90(images, quarter, (1, 2)), np.rot90(maps, quarter, (1, 2))
    return (images[:, :, ::-1], maps[:, :, ::-1]) if mirror else (images, maps)


def teach(lesson: Lesson, parameters: list["torch.nn.Parameter"], state: "torch.nn.Module") -> None:
    """AdamW with warm-up and cosine decay; resumes from the lesson's last checkpoint."""
    import torch

    optimizers = _optimizers(parameters, state, lesson.rate)
    path = SCRATCH / f"{lesson.name}.pt"
    first = 0
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        state.load_state_dict(saved["state"])
        for optimizer, kept in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        first = saved["step"]
    smooth: dict[str, float] = {}
    bar = tqdm(range(first, lesson.steps), initial=first, total=lesson.steps, desc=lesson.name, unit="step", mininterval=5)
    for step in bar:
        rate = lesson.rate * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / lesson.steps) + 0.01)
        loss, shown = lesson.loss(np.random.default_rng((SEED, step)))
        state.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        for name, value in {"loss": float(loss.detach()), **shown}.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        bar.set_postfix({name: f"{value:.3g}" for name, value in smooth.items()}, refresh=False)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == lesson.steps:
            kept = {"state": state.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers], "step": step + 1}
            torch.save(kept, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)


def _optimizers(parameters: list["torch.nn.Parameter"], state: "torch.nn.Module", rate: float) -> list["torch.optim.Optimizer"]:
    """Muon for the matrices inside the transformers, AdamW for everything else."""
    import torch

    inside = {id(p) for name, p in state.named_parameters() if p.ndim == 2 and ("blocks" in name or "layers" in name or "merger" in name)}
    matrices, others = [p for p in parameters if id(p) in inside], [p for p in parameters if id(p) not in inside]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))]


def tower_lesson(model: Any, heads: Any, book: Book, *, steps: int, batch: int) -> Lesson:
    """The tower alone, under its heads."""
    import torch

    def loss(rng: np.random.Generator) -> tuple["torch.Tensor", dict[str, float]]:
        """The heads' loss on a drawn batch, turned and mirrored."""
        chosen = rng.choice(len(book.images), batch, replace=False)
        images, maps = turned(book.images[chosen], book.maps[chosen], rng)
        features = model.model.visual(
            small_backbone.patches(torch.tensor(images.copy())), grid_thw=small_backbone.grids(batch)
        ).pooler_output
        return small_backbone.tower_loss(
            features.reshape(batch, -1, features.shape[-1]), heads, _maps(maps), torch.tensor(book.labels[chosen])
        )

    return Lesson("tower", loss, steps, 2e-3)


def _maps(maps: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.tensor(maps.reshape(len(maps), -1, maps.shape[-1]).copy(), dtype=torch.float32)


def language_lesson(model: Any, heads: Any, book: Book, tokenizer: Any, *, steps: int, batch: int) -> Lesson:
    """Tower and language model together, answering; the tower's heads go on beside."""
    import torch

    def loss(rng: np.random.Generator) -> tuple["torch.Tensor", dict[str, float]]:
        """The loss of the answers and of the heads on a drawn batch."""
        chosen = rng.choice(len(book.images), batch, replace=False)
        talks = [small_backbone.conversation(book.pages[k], tokenizer, rng) for k in chosen]
        length = max(len(talk.ids) for talk in talks)
        ids = torch.tensor([[*talk.ids, *[tokenizer.pad_token_id] * (length - len(talk.ids))] for talk in talks])
        labels = torch.tensor([[*talk.labels, *[-100] * (length - len(talk.labels))] for talk in talks])
        pixels, grid = small_backbone.patches(torch.tensor(book.images[chosen])), small_backbone.grids(batch)
        seen: list[torch.Tensor] = []
        hook = model.model.visual.register_forward_hook(lambda _m, _i, out: seen.append(out.pooler_output))
        is_image = (ids == model.config.image_token_id).int()
        out = model(
            input_ids=ids,
            attention_mask=(ids != tokenizer.pad_token_id).int(),
            pixel_values=pixels,
            image_grid_thw=grid,
            mm_token_type_ids=is_image,
            labels=labels,
        )
        hook.remove()
        features = seen[0].reshape(batch, -1, seen[0].shape[-1])
        beside, shown = small_backbone.tower_loss(features, heads, _maps(book.maps[chosen]), torch.tensor(book.labels[chosen]))
        return out.loss + beside, {"answers": float(out.loss.detach()), **shown}

    return Lesson("language", loss, steps, 1.5e-3)


def tokenizer_texts() -> Iterator[str]:
    """What the tokenizer is made for: questions and answers of the picture book, prompts, chains and verdicts."""
    from iadr1 import expert_ad, products, prompts, synthetic

    rng = np.random.default_rng(SEED)
    for _ in range(400):
        page = picture_book.picture(rng)
        yield from (f"{question} {answer}" for question, answer in picture_book.questions(page, rng))
    sets = (products.TRAIN, products.MVTEC, products.VISA, products.MPDD, products.DAGM, products.DTD, products.SDD)
    places = [picture_book.position((row, column)) for row in range(3) for column in range(3)]
    yield from expert_ad.corpus(
        4000, seed=SEED, categories=[name for table in sets for name in table], types=list(synthetic.DEFECTS), locations=places
    )
    yield from [f"{prompts.question} Please answer by yes or no. Yes. No. user assistant system"] * 50


def main() -> None:
    """Teach the three parts, each from where it stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks._backbone", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=80_000, help="pages of the picture book (default %(default)s)")
    parser.add_argument("--tower-steps", type=int, default=8000, help="steps of 64 pages for the tower alone (default %(default)s)")
    parser.add_argument(
        "--language-steps", type=int, default=1300, help="steps of 64 pages for tower and language model (default %(default)s)"
    )
    args = parser.parse_args()

    import torch

    torch.manual_seed(SEED)
    book = draw_book(args.pages // CHUNK)
    tokenizer = small_backbone.train_tokenizer(tokenizer_texts())
    model = small_backbone.build(tokenizer)
    heads = small_backbone.tower_heads(model.config.text_config.hidden_size)
    small_backbone.use_batched_attention(model)
    both = torch.nn.ModuleDict({"model": model, "heads": heads})
    model.train()
    teach(tower_lesson(model, heads, book, steps=args.tower_steps, batch=64), [*model.model.visual.parameters(), *heads.parameters()], both)
    teach(language_lesson(model, heads, book, tokenizer, steps=args.language_steps, batch=64), list(both.parameters()), both)
    small_backbone.save(model, small_backbone.processor_of(tokenizer), INTO)
    print(f"{INTO}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
