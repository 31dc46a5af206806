import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.runs import Config, dump_config, load_config, parse_config


def test_empty_config_is_the_default():
    config = parse_config({})
    assert config == Config() == load_config()
    assert (config.data.name, config.inference.name, config.architecture.widths) == (
        "digits",
        "mean_field_vi",
        (64, 64),
    )
    assert config.likelihood is None


def test_sections_of_null_are_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data:\ninference:\nlikelihood:\nprior:\n")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [
            "inference.name=nuts",
            "inference.target_accept_prob=0.9",
            "likelihood.noise=0.1",
            "data.name=gap",
        ],
        [
            "architecture.name=cnn",
            "architecture.widths=[4, 8]",
            "prior.scale=fan_in",
            "threads=2",
            "dtype=float64",
        ],
        ["inference.early_stopping.patience=3", "inference.learning_rate=1e-5", "initial=runs/a"],
        [
            "architecture.name=module",
            "architecture.factory=nets:build",
            "architecture.keywords={width: 3}",
        ],
    ],
)
def test_resolved_config_round_trips(tmp_path, keys):
    config = load_config(None, keys)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("inference: {name: nuts, num_draws: 5}\nseed: 1\n")
    config = load_config(path, ["inference.num_draws=7", "seed=2"])
    assert (config.inference.name, config.inference.num_draws, config.seed) == ("nuts", 7, 2)


def test_numbers_with_an_exponent(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("inference: {num_steps: 1e3, learning_rate: 1e-3}\n")
    config = load_config(path, ["prior.scale=2e0"])
    assert (config.inference.num_steps, config.inference.learning_rate, config.prior.scale) == (
        1000,
        0.001,
        2.0,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", "unknown key sede; did you mean 'seed'?"),
        ("inferense.name=nuts", "unknown key inferense; did you mean 'inference'?"),
        ("data.nam=iris", "unknown key data.nam; did you mean 'name'?"),
        ("prior.scal=1", "unknown key prior.scal; did you mean 'scale'?"),
        ("checkpoint.evry=1", "unknown key checkpoint.evry; did you mean 'every'?"),
        ("save.max_megabyte=1", "did you mean 'max_megabytes'?"),
        ("architecture.width=[4]", "for architecture.name=mlp; did you mean 'widths'?"),
        ("architecture.depth=20", "for architecture.name=mlp; it belongs to resnet"),
        ("inference.num_chains=2", "for inference.name=mean_field_vi; it belongs to hmc, nuts"),
        ("inference.num_step=2", "for inference.name=mean_field_vi; did you mean 'num_steps'?"),
        ("likelihood.nois=1", "for likelihood.name=gaussian; did you mean 'noise'?"),
        (
            "inference.early_stopping.patienc=3",
            "inference.early_stopping.patienc; did you mean 'patience'?",
        ),
        ("inference.name=nutz", "unknown inference.name 'nutz'; did you mean 'nuts'?"),
        ("inference.name=[nuts]", "unknown inference.name ['nuts']; did you mean 'nuts'?"),
        ("architecture.name=ml", "unknown architecture.name 'ml'; did you mean 'mlp'?"),
        ("likelihood.name=poison", "did you mean 'poisson'?"),
        ("prior.name=norml", "prior.name: got 'norml'"),
        ("inference=nuts", "inference: got 'nuts', expected a section"),
        ("data=iris", "type data.name=iris"),
        ("checkpoint=3", "checkpoint: got 3, expected a section with keys"),
        ("seed=-1", "seed: got -1; input should be greater than or equal to 0"),
        ("seed=1.5", "seed: got 1.5"),
        ("seed=true", "seed: got True; input should be a number"),
        ("architecture.widths=[yes]", "architecture.widths.0: got True; input should be a number"),
        (
            "inference.learning_rate=true",
            "inference.learning_rate: got True; input should be a number",
        ),
        ("threads=100000", "threads: got 100000; input should be less than or equal to 1024"),
        ("data.name=", "data.name: got None; input should be a valid string; it has no value"),
        ("seed.x=1", "seed: got {'x': 1}"),
        (
            "inference.learning_rate=0",
            "inference.learning_rate: got 0; input should be greater than 0",
        ),
        ("inference.learning_rate=.inf", "inference.learning_rate: got inf"),
        ("inference.batch_size=0", "inference.batch_size: got 0"),
        ("data.test_fraction=1", "data.test_fraction: got 1; input should be less than 1"),
        ("prior.scale=fan_on", "prior.scale: got 'fan_on'"),
        (
            "likelihood.noise=-1",
            "got -1; input should be greater than 0, or input should be 'learned'",
        ),
        ("architecture.widths=[5, a]", "architecture.widths.1: got 'a'"),
        ("dtype=float16", "dtype: got 'float16'; input should be 'float32' or 'float64'"),
        ("config_schema=2", "config_schema: got 2"),
        ("seed=[", "not valid YAML"),
        ("novalue", "expected key=value"),
        ("=1", "expected key=value"),
        ("data..name=1", "expected key=value"),
    ],
)
def test_what_is_wrong_is_named(override, message):
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_override_through_a_value_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\n")
    with pytest.raises(ConfigError, match="seed is a value, not a section"):
        load_config(path, ["seed.x=1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: [", "is not valid YAML"),
        (b"- a\n- b\n", "contains a list, expected sections"),
        (b"just words\n", "contains a str, expected sections"),
        (b"\xff\xfe\x00", "expected a text file in UTF-8"),
        (b"seed: !!python/object/apply:os.getpid []\n", "is not valid YAML"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        load_config(tmp_path)


def test_a_noise_alone_is_gaussian():
    likelihood = load_config(None, ["likelihood.noise=0.1"]).likelihood
    assert likelihood is not None
    assert (likelihood.name, likelihood.noise) == ("gaussian", 0.1)
