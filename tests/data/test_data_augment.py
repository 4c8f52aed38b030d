"""Augmentation: against naive loops, and the published numbers of docs/fidelity.md, 26 to 30."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.random import generator
from alexnet_lab.data import channel_statistics
from alexnet_lab.data.augment import Augment, AugmentParams, Geometry, apply
from alexnet_lab.data.channel_statistics import Statistics, image_statistics, principal_axes
from alexnet_lab.data.normalize import NORMALIZATIONS, Normalizer, make_normalizer

ILSVRC_STDEVS = np.array([19.72083305, 37.09388853, 121.78006099])
ILSVRC_AXES = np.array(
    [
        [0.41795513, -0.71257945, -0.56351045],
        [-0.81698062, -0.02354167, -0.5761844],
        [0.39731118, 0.70119634, -0.59200296],
    ]
)


def ilsvrc_statistics(stored: int = 4) -> Statistics:
    return Statistics(np.zeros((3, stored, stored), np.float32), np.zeros(3), np.ones(3), ILSVRC_STDEVS, ILSVRC_AXES)


def random_images(n: int, stored: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, stored, stored), dtype=np.uint8))


def naive(images: np.ndarray, draws: AugmentParams, geometry: Geometry, normalizer: Normalizer) -> np.ndarray:
    """Pixel by pixel: crop with padding, mirror, minus mean, plus shift, times scale and gain, padding is 0."""
    n, channels, stored, _ = images.shape
    side, padding = geometry.side, geometry.padding
    mean = np.broadcast_to(normalizer.mean.numpy(), (channels, side, side))
    views = np.zeros((n, channels, side, side))
    for i in range(n):
        for y in range(side):
            for x in range(side):
                row = int(draws.top[i]) - padding + y
                column = int(draws.left[i]) - padding + (side - 1 - x if draws.mirror[i] else x)
                if 0 <= row < stored and 0 <= column < stored:
                    for c in range(channels):
                        shift = 0.0 if draws.shift is None else float(draws.shift[i, c])
                        level = float(images[i, c, row, column]) - mean[c, y, x] + shift
                        views[i, c, y, x] = level * float(normalizer.scale[c, 0, 0]) * draws.gain
    return views


@settings(max_examples=30, deadline=None)
@given(
    stored=st.integers(2, 9),
    less=st.integers(0, 4),
    padding=st.integers(0, 3),
    colour=st.sampled_from(["none", "code2012", "lighting"]),
    normalization=st.sampled_from(NORMALIZATIONS),
    seed=st.integers(0, 99),
)
def test_views_equal_those_of_a_naive_loop(*, stored, less, padding, colour, normalization, seed):
    images = random_images(4, stored, seed=seed)
    statistics = image_statistics(images.numpy(), np.arange(4))
    augment = Augment(padding=padding, pca_colour=colour, brightness=0.05)
    geometry = augment.geometry(stored, max(1, stored - less))
    draws = augment.draw(generator(seed, "augment", 0, 0), 4, geometry, statistics)
    normalizer = make_normalizer(normalization, statistics, geometry.side)
    found = apply(images, draws, geometry, normalizer)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), naive(images.numpy(), draws, geometry, normalizer), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cores", [1, 5])
def test_statistics_are_exact_integer_sums_in_any_number_of_threads(cores, monkeypatch):
    monkeypatch.setattr(channel_statistics, "available_cores", lambda: cores)
    monkeypatch.setattr(channel_statistics, "CHUNK_BYTES", 3 * 16 * 2)  # two images
    images, rows = random_images(9, 4, seed=3).numpy(), np.array([8, 1, 2, 5, 7])
    found = channel_statistics.image_statistics(images, rows)
    pixels = [[[int(v) for v in channel.ravel()] for channel in images[row]] for row in rows]
    count = 5 * 16
    means = [sum(sum(image[c]) for image in pixels) / count for c in range(3)]
    products = [
        [sum(a * b for image in pixels for a, b in zip(image[i], image[j], strict=True)) for j in range(3)]
        for i in range(3)
    ]
    covariance = np.array(products) / count - np.outer(means, means)
    assert found.channel_mean.tolist() == means
    assert found.channel_std.tolist() == np.sqrt(np.diag(covariance)).tolist()
    assert np.array_equal(found.mean_image, (images[rows].astype(np.int64).sum(axis=0) / 5).astype(np.float32))


def test_evaluation_takes_the_unchanged_centre():
    images = random_images(2, 256)
    statistics = image_statistics(images.numpy(), np.arange(2))
    views = apply(images, None, Geometry(256, 224), make_normalizer("channel_mean", statistics, 224))
    mean = torch.tensor(statistics.channel_mean, dtype=torch.float32)[:, None, None]
    assert torch.equal(views, images[:, :, 16:240, 16:240].float() - mean)


def test_the_centre_of_the_mean_image_is_subtracted_wherever_the_view_is_taken():
    """docs/fidelity.md, 26: mean image 3x256x256; its centre 224 for every crop."""
    images = random_images(3, 256)
    statistics = image_statistics(images.numpy(), np.arange(3))
    assert statistics.mean_image.shape == (3, 256, 256)
    normalizer = make_normalizer("mean_image", statistics, 224)
    centre = torch.from_numpy(statistics.mean_image[:, 16:240, 16:240].copy())
    for top, left in ((0, 0), (0, 32), (16, 16), (32, 5)):
        draws = AugmentParams(torch.full((3,), top), torch.full((3,), left), torch.zeros(3, dtype=torch.bool), None)
        views = apply(images, draws, Geometry(256, 224), normalizer)
        assert torch.equal(views, images[:, :, top : top + 224, left : left + 224].float() - centre)


@pytest.mark.parametrize(("crop_starts", "last", "views"), [("paper", 31, 2048), ("code2012", 32, 2178)])
def test_crop_starts_of_paper_and_code(crop_starts, last, views):
    """docs/fidelity.md, 27: both ends are reached, and each view is as likely as another."""
    augment = Augment(crop_starts=crop_starts)
    draws = augment.draw(generator(0, "augment", 0, 0), 100_000, augment.geometry(256, 224), ilsvrc_statistics())
    for starts in (draws.top, draws.left):
        assert (int(starts.min()), int(starts.max())) == (0, last)
        expected = 100_000 / (last + 1)
        counts = torch.bincount(starts, minlength=last + 1)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()
    seen = {(int(t), int(le), bool(m)) for t, le, m in zip(draws.top, draws.left, draws.mirror, strict=True)}
    assert len(seen) == views


def test_half_of_the_training_images_are_mirrored_and_no_test_image():
    """docs/fidelity.md, 28."""
    augment = Augment()
    draws = augment.draw(generator(0, "augment", 0, 0), 100_000, augment.geometry(32, 32), ilsvrc_statistics())
    assert abs(draws.mirror.float().mean() - 0.5) < 0.01
    images = random_images(8, 4)
    normalizer = make_normalizer("unit", image_statistics(images.numpy(), np.arange(8)), 4)
    assert torch.equal((apply(images, None, Geometry(4, 4), normalizer) * 255).round().byte(), images)


@pytest.mark.parametrize(
    ("pca_colour", "before", "after"),
    [("code2012", [7.40, 7.20, 7.70], [6.73, 6.55, 7.00]), ("lighting", [3.17, 3.22, 3.25], [3.17, 3.22, 3.25])],
)
def test_colour_noise_has_the_published_strength(pca_colour, before, after):
    """docs/fidelity.md, 29 and 30: standard deviation of each channel, in grey levels, within 2 %.

    The deviations of `lighting` were published with Torch's own eigenvalues.
    """
    statistics = ilsvrc_statistics() if pca_colour == "code2012" else torch_lighting_statistics()
    augment = Augment(crop=False, mirror=False, pca_colour=pca_colour)
    draws = augment.draw(generator(0, "augment", 0, 0), 100_000, augment.geometry(2, 2), statistics)
    assert draws.shift is not None
    np.testing.assert_allclose(draws.shift.std(dim=0).numpy(), before, rtol=0.02)
    views = apply(
        torch.zeros(100_000, 3, 2, 2, dtype=torch.uint8),
        draws,
        augment.geometry(2, 2),
        Normalizer(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)),
    )
    np.testing.assert_allclose(views[:, :, 0, 0].std(dim=0).numpy(), after, rtol=0.02)
    assert torch.equal(views, views[:, :, :1, :1].expand_as(views))  # the same shift at all pixels of an image


def test_colour_noise_ends_with_its_last_epoch_and_nothing_else_changes():
    """Run 145: the coefficient is 0 from epoch 67 on, so that nothing is divided by 1.1 either."""
    geometry = Geometry(40, 32)

    def draw(augment: Augment, epoch: int) -> AugmentParams:
        rng = generator(0, "augment", epoch, 0)
        return augment.draw(rng, 16, geometry, ilsvrc_statistics(), epoch)

    recorded, never = Augment(pca_colour="code2012", pca_epochs=67), Augment(pca_colour="code2012")
    for epoch in (0, 66):
        on, expected = draw(recorded, epoch), draw(never, epoch)
        assert on.shift is not None
        assert expected.shift is not None
        assert torch.equal(on.shift, expected.shift)
        assert on.gain == 1 / 1.1
    for epoch in (67, 90):
        off, expected = draw(recorded, epoch), draw(Augment(), epoch)
        assert off.shift is None
        assert off.gain == 1.0
        assert all(torch.equal(one, two) for one, two in zip(off[:3], expected[:3], strict=True))
    assert draw(Augment(pca_colour="lighting", pca_epochs=0), 0).shift is None


def torch_lighting_statistics() -> Statistics:
    """fb.resnet.torch's eigenvalues (variances on 0..1) and eigenvectors, as its public ports have them."""
    axes = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    return ilsvrc_statistics()._replace(colour_stdevs=255 * np.sqrt([0.2175, 0.0188, 0.0045]), colour_axes=axes)


def test_brightness_is_uniform_and_equal_over_pixels_and_channels():
    augment = Augment(crop=False, mirror=False, brightness=0.2)
    draws = augment.draw(generator(0, "augment", 0, 0), 50_000, augment.geometry(2, 2), ilsvrc_statistics())
    assert draws.shift is not None
    assert torch.equal(draws.shift, draws.shift[:, :1].expand(-1, 3))
    assert draws.shift.abs().max() <= 51.0
    assert abs(draws.shift.std() - 51 / 3**0.5) < 0.3
    assert abs(draws.shift.mean()) < 0.6


def test_fixed_brightness_is_added_to_every_training_image():
    augment = Augment(brightness=0.2, brightness_kind="fixed", pca_colour="none")
    draws = augment.draw(generator(0, "augment", 0, 0), 7, augment.geometry(2, 2), ilsvrc_statistics())
    assert draws.shift is not None
    assert draws.shift.tolist() == [[51.0] * 3] * 7  # 0.2 * 255
    with pytest.raises(ConfigError, match=r"`augment.brightness_kind` is 'always' .*allowed: 'random' or 'fixed'"):
        Augment(brightness_kind="always")  # pyright: ignore[reportArgumentType] - that is the point


def test_switching_one_change_off_leaves_the_others_as_they_were():
    def draw(augment: Augment) -> AugmentParams:
        return augment.draw(generator(4, "augment", 1, 2), 64, augment.geometry(40, 32), ilsvrc_statistics())

    everything = draw(Augment(pca_colour="code2012", brightness=0.1))
    still = draw(Augment(mirror=False))
    assert torch.equal(still.top, everything.top)
    assert torch.equal(still.left, everything.left)
    assert not still.mirror.any()
    fixed = draw(Augment(crop=False))
    assert torch.equal(fixed.mirror, everything.mirror)
    assert fixed.top.tolist() == fixed.left.tolist() == [4] * 64


def test_a_part_of_the_draws_gives_bit_identical_views():
    images = random_images(10, 12)
    statistics = image_statistics(images.numpy(), np.arange(10))
    augment = Augment(padding=2, pca_colour="code2012", brightness=0.1)
    geometry = augment.geometry(12, 17)  # enlarged as well
    draws = augment.draw(generator(0, "augment", 0, 0), 10, geometry, statistics)
    normalizer = make_normalizer("mean_image", statistics, geometry.side)
    whole = apply(images, draws, geometry, normalizer)
    for part in (slice(0, 3), slice(3, 4), slice(4, 10), slice(2, 2)):
        assert torch.equal(apply(images[part], draws.part(part), geometry, normalizer), whole[part])


def test_a_larger_model_side_enlarges_the_normalised_image():
    images = random_images(2, 8, channels=1)
    statistics = image_statistics(images.numpy(), np.arange(2))
    normalizer = make_normalizer("standardize", statistics, 8)
    plain = apply(images, None, Geometry(8, 8), normalizer)
    large = apply(images, None, Geometry(8, 28), normalizer)
    assert torch.equal(large, F.interpolate(plain, size=(28, 28), mode="bilinear", align_corners=False))


@pytest.mark.parametrize(
    ("stored", "image_size", "padding", "side", "room", "centre"),
    [
        (256, 224, 0, 224, 32, 16),
        (32, 32, 4, 32, 8, 4),
        (32, 24, 0, 24, 8, 4),
        (8, 28, 1, 8, 2, 1),
        (28, 28, 0, 28, 0, 0),
    ],
)
def test_geometry(*, stored, image_size, padding, side, room, centre):
    geometry = Geometry(stored, image_size, padding)
    assert (geometry.side, geometry.room, geometry.centre) == (side, room, centre)


@pytest.mark.parametrize(
    ("normalization", "mean", "std"),
    [("channel_mean", 0.0, None), ("standardize", 0.0, 1.0), ("unit", None, None), ("symmetric", None, None)],
)
def test_normalisations(normalization, mean, std):
    images = random_images(30, 6)
    statistics = image_statistics(images.numpy(), np.arange(30))
    views = apply(images, None, Geometry(6, 6), make_normalizer(normalization, statistics, 6)).numpy()
    levels = images.numpy().astype(float)
    expected = {
        "channel_mean": levels - levels.mean(axis=(0, 2, 3), keepdims=True),
        "standardize": (levels - levels.mean(axis=(0, 2, 3), keepdims=True))
        / levels.std(axis=(0, 2, 3), keepdims=True),
        "unit": levels / 255,
        "symmetric": levels / 127.5 - 1,
    }[normalization]
    np.testing.assert_allclose(views, expected, atol=2e-5, rtol=1e-5)
    if mean is not None:
        np.testing.assert_allclose(views.mean(axis=(0, 2, 3)), mean, atol=1e-4)
    if std is not None:
        np.testing.assert_allclose(views.std(axis=(0, 2, 3)), std, atol=1e-4)


def test_principal_axes_of_grey_images_do_no_harm():
    stdevs, axes = principal_axes(np.array([[4.0]]))
    assert (stdevs[0], axes[0, 0]) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 1}, "`augment.crop` is 1 (int); allowed: boolean"),
        ({"padding": -1}, "`augment.padding` is -1 (int); allowed: greater than or equal to 0"),
        (
            {"padding": 4, "crop": False},
            "`augment.padding` is 4 but `augment.crop` is false: set padding=0 or crop=true",
        ),
        ({"mirror": "yes"}, "`augment.mirror` is 'yes' (str); allowed: boolean"),
        (
            {"pca_colour": "code2013"},
            "`augment.pca_colour` is 'code2013' (str); allowed: 'none', 'code2012' or 'lighting'",
        ),
        ({"pca_std": -0.1}, "`augment.pca_std` is -0.1 (float); allowed: greater than or equal to 0"),
        ({"pca_epochs": -1}, "`augment.pca_epochs` is -1 (int); allowed: greater than or equal to 0"),
        ({"brightness": float("inf")}, "`augment.brightness` is inf (float); allowed: a finite number"),
        ({"crop_starts": "papers"}, "`augment.crop_starts` is 'papers' (str); allowed: 'paper' or 'code2012'"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError) as caught:
        Augment(**fields)
    assert str(caught.value) == message
