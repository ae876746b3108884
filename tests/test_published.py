"""The published figures and a report beside them."""

import pytest

from iadr1.errors import ReportError
from iadr1.published import backbones, parity, targets

HEADLINE = {
    "LLaVA-OneVision-SI-0.5B": 83.8, "Qwen2-VL-2B": 72.5, "Qwen2.5-VL-3B": 77.4, "Qwen2.5-VL-7B": 80.4, "LLaVA-1.5-7B": 76.7,
    "LLaVA-OneVision-SI-7B": 86.1, "LLaVA-1.6-8B": 78.5,
}  # fmt: skip
UPDATE = {
    "LLaVA-OneVision-SI-0.5B": 83.93, "Qwen2-VL-2B": 74.34, "Qwen2.5-VL-3B": 80.36, "Qwen2.5-VL-7B": 81.56, "LLaVA-1.5-7B": 77.86,
    "LLaVA-OneVision-SI-7B": 86.07, "LLaVA-1.6-8B": 79.08, "Qwen-VL-Max": 77.89,
}  # fmt: skip


def mean(source, backbone, stage="sc_grpo"):
    found = [
        t for t in targets() if (t.backbone, t.stage, t.shots, t.dataset) == (backbone, stage, 0, "mean") and t.source.startswith(source)
    ]
    return found[0].value


@pytest.mark.parametrize("backbone, expected", HEADLINE.items())
def test_the_papers_headline_means_follow_from_its_cells(backbone, expected):
    assert mean("paper", backbone) == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("backbone, expected", UPDATE.items())
def test_the_supplementary_means_follow_from_their_files(backbone, expected):
    assert mean("supplementary", backbone, "other" if backbone == "Qwen-VL-Max" else "sc_grpo") == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    "source, backbone, stage, shots, dataset, flag",
    [
        ("paper table 1", "Anomaly-OV-7B", "other", 0, "visa", "does not give the stated mean"),
        ("paper table 4", "LLaVA-OneVision-SI-0.5B", "pa_sft", 0, "sdd", "table 10 prints 96.0"),
        ("paper table 4", "Qwen2.5-VL-3B", "pa_sft", 0, "mpdd", "table 10 prints 58.2"),
        ("paper table 4", "LLaVA-OneVision-SI-0.5B", "sc_grpo", 1, "visa", "66.8 in tables 9 and 11"),
        ("paper table 4", "LLaVA-OneVision-SI-7B", "sc_grpo", 0, "mean", "table 6 prints this row"),
        ("supplementary", "Qwen2.5-VL-3B", "sc_grpo", 0, "mvtec", "the 4-shot result"),
        ("supplementary", "LLaVA-1.6-8B", "sc_grpo", 2, "visa", "intermediate checkpoint"),
    ],
)
def test_inconsistent_targets_are_flagged(source, backbone, stage, shots, dataset, flag):
    key = (source, backbone, stage, shots, dataset)
    (found,) = [t for t in targets() if (t.source, t.backbone, t.stage, t.shots, t.dataset) == key]
    assert any(flag in text for text in found.flags)


def test_a_sound_target_has_no_flag():
    (found,) = [
        t
        for t in targets()
        if (t.source, t.backbone, t.stage, t.shots, t.dataset) == ("paper table 4", "LLaVA-1.5-7B", "sc_grpo", 0, "dagm")
    ]
    assert (found.value, found.flags) == (75.4, ())


def report(**datasets):
    rows = {name: {"balanced_accuracy": value} for name, value in datasets.items()}
    return {"models": {"sc_grpo": {"datasets": rows, "mean_balanced_accuracy": sum(datasets.values()) / len(datasets)}}}


def test_ours_stands_beside_both_sources():
    (row,) = parity(report(dagm=80.0), backbone="LLaVA-1.5-7B")
    assert (row.paper, row.paper_delta) == (75.4, pytest.approx(4.6))
    assert row.supplementary == pytest.approx(79.0887, abs=1e-4)


def test_the_mean_is_compared_only_over_the_same_datasets():
    assert [row.dataset for row in parity(report(dagm=80.0, sdd=70.0), backbone="LLaVA-1.5-7B")] == ["dagm", "sdd"]
    full = report(mvtec=80, visa=70, mpdd=60, dagm=80, dtd=90, sdd=70)
    assert parity(full, backbone="LLaVA-1.5-7B")[-1].dataset == "mean"
    assert "mean" not in [row.dataset for row in parity(report(tile=80, **dict.fromkeys(("mvtec", "visa"), 1)), backbone="LLaVA-1.5-7B")]


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    assert len(backbones()) == 7
    with pytest.raises(ReportError, match=r"'gpt' is not a published backbone; choose one of LLaVA-1\.5-7B"):
        parity(report(dagm=80.0), backbone="gpt")
