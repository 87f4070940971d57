from __future__ import annotations

import pytest
import torch

from tests.generate.fake import FakeModel


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()
