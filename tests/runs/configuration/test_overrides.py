"""Overrides: texts are used as typed, everything else is YAML."""

import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.runs import Config, dump_config, load_config
from bnn_symm.runs.configuration.overrides import is_text

TEXTS = [
    *(
        "No",
        "yes",
        "on",
        "2020",
        "01",
        "1e5",
        "1_000",
        "0x1f",
        "null",
        "~",
        "a: b",
        "# x",
        "*x",
        "&x",
        "[a]",
        "{a}",
    ),
    *(
        " leading",
        "trailing ",
        "'quoted'",
        '"quoted"',
        "a=b",
        "a,b",
        "2020-13-45",
        "!!int 3",
        "%x",
        "- a",
        "é",
        "@x",
    ),
    "\t",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["data.name", "data.target", "data.gap_feature"])
def test_a_text_is_what_was_typed_and_survives_the_file(key, text, tmp_path):
    config = load_config(None, [f"{key}={text}"])
    assert getattr(config.data, key.partition(".")[2]) == text
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_an_empty_value_unsets_an_optional_text(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {name: iris, target: species}\ninitial: runs/a\n")
    config = load_config(path, ["data.target=", "initial="])
    assert (config.data.target, config.initial) == (None, None)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        *((key, True) for key in ("data.name", "data.target", "device", "initial", "prior.mean")),
        *((key, True) for key in ("architecture.factory", "data.gap_feature")),
        *(
            (key, False)
            for key in ("seed", "threads", "data.task", "data.limit", "checkpoint.every", "data")
        ),
        *(
            (key, False)
            for key in ("architecture.widths", "architecture.keywords", "prior.overrides", "dtype")
        ),
        *((key, False) for key in ("no.such.key", "data.name.x", "likelihood")),
    ],
)
def test_which_settings_are_texts(key, expected):
    assert is_text(Config, key.split(".")) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("500", 500), ("5_00", 500), (" 7 ", 7)],
    ids=lambda value: repr(value),
)
def test_other_settings_are_yaml(text, value):
    assert load_config(None, [f"inference.num_steps={text}"]).inference.num_steps == value


@pytest.mark.parametrize(
    "line", ["target: No", "target: 2020", "target: 1e5", "name: yes", "name: 01"]
)
def test_a_file_that_means_a_text_gets_the_remedy(line, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"data: {{{line}}}\n")
    with pytest.raises(ConfigError, match="in quotes"):
        load_config(path)
    key, _, value = line.partition(": ")
    path.write_text(f"data: {{{key}: '{value}'}}\n")
    assert getattr(load_config(path).data, key) == value


@pytest.mark.parametrize(
    "override",
    [
        *(
            f"{key}={'x' * 5000}"
            for key in ("data.limit", "seed", "inference.name", "prior.name", "warm_start", "data")
        ),
        *(f"{'y' * 5000}{end}" for end in ("", "=1", ".z=1")),
        *(
            f"data.{'z' * 5000}=1",
            f"architecture.symmetry.{'z' * 5000}=1",
            f"inference.learning_rate=[{'1, ' * 2000}]",
        ),
        "architecture.widths=[" + "a, " * 2000 + "]",
    ],
    ids=lambda text: text[:24],
)
def test_messages_are_short_whatever_the_value(override):
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert len(str(error.value)) <= 320
    assert "\n" not in str(error.value)
