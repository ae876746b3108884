"""A `trl.GRPOTrainer` that samples groups again whose completions all earn the same, because such a group teaches nothing."""

from typing import Any


def resampling_trainer(times: int) -> Any:
    """The trainer class that samples such groups up to `times` more; TRL's own for 0.

    The whole batch is generated again and only those groups are taken from it: every process then makes the same calls, which collectives
    need, and a batch of few rows takes about as long as a full one.
    """
    from trl import GRPOTrainer

    if not times:
        return GRPOTrainer

    class ResamplingTrainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            self._rows = inputs
            return super()._generate_and_score_completions(inputs)

        def _generate_single_turn(self, *prompts: Any, **options: Any) -> tuple[list[Any], list[Any] | None]:
            completions, logprobs = super()._generate_single_turn(*prompts, **options)
            for _ in range(times if self.model.training else 0):
                dead, share = self._dead(completions)
                if not share:
                    break
                self._metrics["train"]["resampled"].append(share)
                others, other_logprobs = super()._generate_single_turn(*prompts, **options)
                completions = _chosen(dead, others, completions)
                logprobs = logprobs and _chosen(dead, other_logprobs, logprobs)
            return completions, logprobs

        def _dead(self, completion_ids: list[Any]) -> tuple[list[bool], float]:
            """Which completions of this process are in groups without a difference in reward, and the share of such groups on all processes."""
            texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
            said = [[{"role": "assistant", "content": text}] for text in texts]
            rewards = self._calculate_rewards(self._rows, [row["prompt"] for row in self._rows], said, completion_ids)
            # What rewards log belongs to the completions that are kept; TRL asks for it again.
            self._pending_extra_logs.clear()
            self._pending_metrics.clear()
            total = (rewards * self.reward_weights.to(rewards.device)).nansum(1).view(-1, self.num_generations)
            dead = (total.amax(1) - total.amin(1)) < SAME
            first = self.accelerator.process_index * len(said)
            return dead.repeat_interleave(self.num_generations)[first : first + len(said)].tolist(), dead.float().mean().item()

    return ResamplingTrainer


# Rewards are sums of float32 numbers.
SAME = 1e-6


def _chosen(where: list[bool], new: Any, old: Any) -> list[Any]:
    return [other if chosen else one for chosen, other, one in zip(where, new, old, strict=True)]
