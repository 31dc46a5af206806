import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn_symm.data import SHIFTS, Shift, Split, parse_shift, shift
from bnn_symm.errors import ConfigError, InvalidData

IMAGES = torch.randn(3, 2, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2)])
def test_rotation_by_right_angles_is_exact(degrees, turns):
    torch.testing.assert_close(
        shift(IMAGES, "rotation", degrees), torch.rot90(IMAGES, turns, dims=(2, 3))
    )


def test_a_rotated_constant_image_is_constant():
    torch.testing.assert_close(
        shift(torch.full((1, 1, 8, 6), 2.5), "rotation", 33), torch.full((1, 1, 8, 6), 2.5)
    )


def test_rotation_keeps_angles_in_oblong_images():
    tall = torch.zeros(1, 1, 9, 5, dtype=torch.float64)
    tall[0, 0, 2, 2] = 1.0  # two pixels above the center (4, 2)
    turned = shift(tall, "rotation", 90)
    torch.testing.assert_close(turned[0, 0, 4, 0], torch.tensor(1.0, dtype=torch.float64))


def test_noise_is_keyed_and_has_its_deviation():
    x = torch.zeros(100, 200)
    noisy = shift(x, "gaussian_noise", 2)
    assert torch.equal(noisy, shift(x, "gaussian_noise", 2))
    assert not torch.equal(noisy, shift(x, "gaussian_noise", 2, seed=1))
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.03)


def test_severity_is_monotone():
    deviations = [(shift(IMAGES, "gaussian_noise", s) - IMAGES).std() for s in range(1, 6)]
    assert deviations == sorted(deviations)
    for name in ("gaussian_blur", "contrast"):
        spread = [shift(IMAGES, name, s).std() for s in range(1, 6)]
        assert spread == sorted(spread, reverse=True)
        assert spread[0] < IMAGES.std()


def test_contrast_by_hand():
    x = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(
        shift(x, "contrast", 1), torch.tensor([0.6, 1.4]).reshape(1, 1, 1, 2)
    )


def test_blur_keeps_the_sum_of_an_inner_dot():
    x = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    x[0, 0, 7, 7] = 1.0
    blurred = shift(x, "gaussian_blur", 4)
    assert float(blurred.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))
    # neighboring weights of a Gaussian of deviation 1 pixel
    assert float(blurred[0, 0, 7, 8] / blurred[0, 0, 7, 7]) == pytest.approx(2.718281828**-0.5)


def test_a_part_keeps_its_target():
    part = Split(x=IMAGES, y=torch.tensor([0, 1, 2]))
    shifted = shift(part, "contrast", 3)
    assert torch.equal(shifted.x, shift(IMAGES, "contrast", 3))
    assert shifted.y is part.y


@pytest.mark.parametrize("name", ["rotation", "gaussian_blur", "contrast"])
def test_shifts_of_images_refuse_tables(name):
    with pytest.raises(InvalidData, match=r"is for images .* shape \(4, 3\); use gaussian_noise"):
        shift(torch.zeros(4, 3), name, 2)


@given(st.sampled_from(SHIFTS), st.integers(1, 5))
def test_shifts_are_read_as_they_are_written(name, severity):
    assert parse_shift(str(Shift(name=name, severity=severity))) == Shift(
        name=name, severity=severity
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotate:30", "unknown shift 'rotate'; did you mean 'rotation'"),
        ("rotation", "expected NAME:SEVERITY such as rotation:30"),
        ("rotation:181", "expected 0 to 180 degrees"),
        ("rotation:nan", "expected 0 to 180 degrees"),
        ("contrast:6", "expected a severity of 1, 2, 3, 4 or 5"),
        ("contrast:2.5", "expected a severity of 1, 2, 3, 4 or 5"),
    ],
)
def test_shifts_that_are_wrong(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_shift(text)
