"""Parameter files: what is shipped loads, and what is wrong is refused by name."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from iadr1.errors import ParamsError
from iadr1.params import load, parse, read

ROOT = Path(__file__).parent.parent
TREE = read(ROOT / "params.yaml")


def changed(**sections):
    """The shipped parameters with some keys changed; None removes a key."""
    tree = copy.deepcopy(TREE)
    for section, keys in sections.items():
        tree[section].update(keys)
        for key in [key for key, value in keys.items() if value is None]:
            del tree[section][key]
    return tree


def problem(tree):
    with pytest.raises(ParamsError) as raised:
        parse(tree, source="params.yaml")
    return str(raised.value)


def test_the_shipped_parameters_load_and_keep_the_trainers_keys_apart():
    params = load(ROOT / "params.yaml")
    assert params.sc_grpo.trainer["max_completion_length"] == TREE["sc_grpo"]["max_completion_length"]
    assert not params.sc_grpo.trainer.keys() & {"preset", "recipe", "global_batch_size"}
    assert isinstance(params.pa_sft.trainer["learning_rate"], float)


@pytest.mark.parametrize(
    "sections, said",
    [
        ({"fetch": {"train_image": 3}}, "params.yaml: fetch.train_image is not a parameter; did you mean train_images?"),
        ({"sc_grpo": {"num_generation": 4}}, "params.yaml: sc_grpo.num_generation is not a parameter; did you mean num_generations?"),
        ({"pa_sft": {"learning_rat": 0.1}}, "params.yaml: pa_sft.learning_rat is not a parameter; did you mean learning_rate?"),
        ({"register": {"gate": {}}}, "params.yaml: register.gate is not a parameter; did you mean gates?"),
        ({"evaluate": {"datasets": {"x": {"layuot": "visa", "folder": "x"}}}}, "params.yaml: evaluate.datasets.x.l"),
        (
            {"prepare": {"chains": "answers"}},
            "params.yaml: prepare.chains: Input should be 'expert_ad' or 'answers_only'; found 'answers'.",
        ),
        ({"prepare": {"types": "corse"}}, "params.yaml: prepare.types: Input should be 'fine' or 'coarse'; found 'corse'."),
        ({"prepare": {"pa_sft_share": 20}}, "params.yaml: prepare.pa_sft_share: Input should be less than or equal to 1; found 20."),
        ({"prepare": {"pa_sft_share": 0.0}}, "params.yaml: prepare.pa_sft_share: Input should be greater than 0; found 0.0."),
        ({"prepare": {"grid": 6}}, "params.yaml: prepare.grid: Input should be less than or equal to 5; found 6."),
        ({"prepare": {"shots": 5}}, "params.yaml: prepare.shots: Input should be less than or equal to 4; found 5."),
        ({"prepare": {"shots": None}}, "params.yaml: prepare.shots is missing. Add it; params.yaml shows every key."),
        (
            {"prepare": {"anomalous_share": 1.5}},
            "params.yaml: prepare.anomalous_share: Input should be less than or equal to 1; found 1.5.",
        ),
        (
            {"prepare": {"anomalous_share": 0.9}},
            "params.yaml: prepare.anomalous_share 0.9 leaves one class fewer rows than validate.minimum_minority_share 0.2 allows. Change one of",
        ),
        (
            {"prepare": {"grid": 4}, "sc_grpo": {"preset": "released"}},
            "params.yaml: sc_grpo.preset released knows places on a 3 x 3 grid only, but prepare.grid is 4. Set the grid to 3, or take another",
        ),
        ({"evaluate": {"batch_size": "many"}}, "params.yaml: evaluate.batch_size: Input should be a valid integer; found 'many'."),
        ({"fetch": {"train_images": None}}, "params.yaml: fetch.train_images is missing. Add it; params.yaml shows every key."),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(sections, said):
    assert problem(changed(**sections)).startswith(said)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_balance_at_the_very_limit_is_allowed(share):
    assert parse(changed(prepare={"anomalous_share": share}), source="params.yaml").prepare.anomalous_share == share


def test_an_unknown_section_is_refused_by_name():
    assert problem({**TREE, "sc_gpro": {}}) == "params.yaml: sc_gpro is not a parameter; did you mean sc_grpo?"


def test_a_number_that_yaml_takes_for_a_text_is_told_how_to_be_written(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text().replace("learning_rate: 1.2e-04", "learning_rate: 1e-6"))
    with pytest.raises(ParamsError, match=r"sc_grpo\.learning_rate is the text '1e-6' to YAML 1\.1, not a number; write 1\.0e-06\."):
        load(file)
    assert yaml.safe_load("1.0e-06") == 1e-6


@pytest.mark.parametrize("text, said", [("a: [1", "not YAML"), ("- 1", "holds list, not keys and values"), ("", "holds NoneType")])
def test_a_file_that_is_no_parameter_file_is_refused(tmp_path, text, said):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match=said):
        load(file)


def test_a_missing_file_is_told_with_what_to_do(tmp_path):
    with pytest.raises(ParamsError, match=r"no such file. Run from the project's root, or name another file with --params"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_gives_parameters_that_load(path):
    from tasks._experiment import overlaid

    changes = read(path)
    params = parse(overlaid(TREE, changes, source=path.name), source=path.name)
    assert params != parse(TREE, source="params.yaml") and changes.keys() <= TREE.keys()


def test_reading_parameters_does_not_import_the_trainers():
    code = "import sys; from iadr1.params import load; from pathlib import Path; load(Path('params.yaml')); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "False\n"


def test_the_trainers_fields_read_from_source_are_their_fields():
    from dataclasses import fields

    from trl import GRPOConfig, SFTConfig

    from iadr1.params import TRAINERS, trainer_fields

    for section, config in {"pa_sft": SFTConfig, "sc_grpo": GRPOConfig}.items():
        assert trainer_fields(*TRAINERS[section]) == {field.name for field in fields(config)}
