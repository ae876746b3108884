"""The taxonomy and how near two names of types are."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iadr1.defect_types import coarse, fine, from_folder, taxonomy, type_score

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "predicted, expected, points",
    [
        ("scratch", "scratch", 1.0),
        ("Through-Hole", "through hole", 1.0),
        ("scratches", "scratch", 0.85),
        ("crack", "fracture", 0.85),
        ("discoloration", "color anomaly", 0.85),
        ("bent", "bending", 0.85),
        ("scratch damage", "scratch", 0.85),  # damage says no more than that something is wrong
        ("a long scratch on the surface", "scratch", 0.85),
        ("stain", "dirt", 0.6),
        ("dent", "deformation", 0.6),
        ("pit", "hole", 0.6),
        ("broken", "damage", 0.6),
        ("rust", "contamination", 0.6),
        ("scrach", "scratch", 0.4),
        ("deformtion", "deformation", 0.4),
        ("hole", "damage", 0.3),
        ("surface anomaly", "scratch", 0.3),
        ("hole", "scratch", 0.0),
        ("stainless steel", "stain", 0.0),
        ("whole surface", "hole", 0.0),
        ("no damage", "damage", 0.0),
        ("undamaged", "damage", 0.0),
        ("damage-free", "damage", 0.0),
        (".", "scratch", 0.0),
        ("!!!", "scratch", 0.0),
        ("a", "scratch", 0.0),
        ("e", "hole", 0.0),
        ("", "scratch", 0.0),
        ("defect", "scratch", 0.0),
        ("hole damage deformation abrasion", "hole", 0.0),
        ("scratch, stain", "scratch", 0.0),  # one of two is a bet
        ("scratch " * 40, "scratch", 0.0),
        ("stain or rust", "rust", 0.6),  # a bet within one coarse type is worth that type
        ("stain, dirt, rust", "rust", 0.0),
        ("contamination (rust)", "rust", 0.85),  # a coarse type and one of its own is no bet
        ("contamination stain dirt impurity discoloration rust", "rust", 0.0),
    ],
)
def test_equation_5_levels(predicted, expected, points):
    assert type_score(predicted, expected) == points


@pytest.mark.parametrize(
    "name, expected",
    [
        ("scratch", "scratch"), ("score mark", "scratch"), ("hole", "hole"), ("pit", "hole"), ("puncture", "hole"),
        ("stain", "contamination"), ("discoloration", "contamination"), ("dirt", "contamination"),
        ("foreign particle", "foreign objects"), ("fibre", "foreign objects"), ("debris", "foreign objects"),
        ("chip", "missing parts"), ("notch", "missing parts"), ("missing part", "missing parts"), ("gap", "missing parts"),
        ("dent", "deformation"), ("bend", "deformation"), ("warp", "deformation"),
        ("crack", "damage"), ("fracture", "damage"), ("breakage", "damage"),
        ("wear mark", "abrasion"), ("abrasion", "abrasion"), ("scuff", "abrasion"),
        ("something odd", None), ("scratch and hole", None), ("no scratch", None),
    ],
)  # fmt: skip
def test_fine_types_belong_to_coarse_ones(name, expected):
    assert coarse(name) == expected


@pytest.mark.parametrize(
    "folder, expected",
    [
        ("blowhole", "hole"), ("break", "breakage"), ("crack", "crack"), ("fray", "fraying"), ("uneven", "uneven surface"),
        ("discolor", "discoloration"), ("misshape", "deformation"), ("stuck", "deformation"),
        ("major_rust", "rust"), ("total_rust", "rust"), ("scratches", "scratch"), ("hole", "hole"), ("parts_mismatch", "misalignment"),
        ("bend_and_parts_mismatch", "bend"), ("defective_painting", "paint fault"), ("flattening", "squeeze"),
        ("pitting", "pit"), ("pitting_kgt", "pit"), ("broken", "breakage"), ("broken_nomask", "breakage"), ("damaged", "damage"),
        ("broken_large", "breakage"), ("contamination", "contamination"), ("bent_wire", "bend"), ("metal_contamination", "foreign object"),
        ("scratch_head", "scratch"), ("small_cracks", "crack"), ("different_colour_spot", "discoloration"), ("corner_or_edge_breakage", "breakage"),
        ("chunk_of_wax_missing", "missing part"), ("QS", "missing part"), ("AK", "pit"), ("mousebite", "notch"), ("other", None),
         ("missing_cable", "missing part"), ("poke_insulation", "puncture"), ("good", None), ("bad", None),
        ("defect", None), ("mixed", None), ("combined", None), ("defective", None), ("anomaly", None), ("anomalous", None), ("000", None),
    ],
)  # fmt: skip
def test_a_folder_name_states_a_type_or_none(folder, expected):
    assert from_folder(folder) == expected


def test_the_taxonomy_has_eight_coarse_types_in_two_groups():
    known = taxonomy()
    assert known.coarse == ("contamination", "foreign objects", "scratch", "missing parts", "deformation", "hole", "damage", "abrasion")
    assert {kind.group for kind in known.phrases.values()} == {"surface anomalies", "structural anomalies"}


def test_a_word_names_one_fine_type_only():
    raw = yaml.safe_load((ROOT / "iadr1" / "defect_types.yaml").read_text(encoding="utf-8"))
    entries = [(phrase, name) for entry in raw["types"].values() for name, others in entry["fine"].items() for phrase in (name, *others)]
    assert [(phrase, name, fine(phrase)) for phrase, name in entries if fine(phrase) != name] == []


def test_every_alias_is_a_fine_type():
    assert [folder for folder, kind in taxonomy().folders.items() if kind is not None and fine(kind) != kind] == []


@given(st.text(max_size=60), st.sampled_from(sorted({kind.fine for kind in taxonomy().phrases.values()})))
def test_a_score_is_one_of_the_six_levels(predicted, expected):
    assert type_score(predicted, expected) in (0.0, 0.3, 0.4, 0.6, 0.85, 1.0)
    assert type_score(expected, expected) == 1.0
