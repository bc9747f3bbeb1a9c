"""Pictures become the tensor that training saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize, to_tensor

from camserve_server.engine.preprocess import Preprocess


@pytest.mark.parametrize("channels_last", [True, False])
def test_pictures_are_scaled_and_normalised_in_the_wanted_memory_order(channels_last: bool) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8))
    batch = Preprocess(mean, std, torch.device("cpu"), channels_last=channels_last)(pictures)
    expected = torch.stack([normalize(to_tensor(picture), mean, std) for picture in pictures])
    assert batch.dtype == torch.float32
    assert torch.equal(batch, expected)
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.is_contiguous(memory_format=form)


def test_the_pictures_themselves_are_not_changed() -> None:
    picture = np.full((2, 2, 3), 200, np.uint8)
    Preprocess((0.5,) * 3, (0.5,) * 3, torch.device("cpu"), channels_last=True)([picture])
    assert (picture == 200).all()
