"""Expert-AD, built from images and masks: pairs, a teacher's comparison, a chain of five steps, gates, human review, integration."""

from iadr1.expert_ad.chains import COMPARISON, DECISION, EVALUATION, IDENTIFICATION, OPENINGS, SEEN, UNSEEN, chain, corpus

__all__ = ["COMPARISON", "DECISION", "EVALUATION", "IDENTIFICATION", "OPENINGS", "SEEN", "UNSEEN", "chain", "corpus"]
