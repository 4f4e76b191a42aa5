import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers_each_time():
    torch.manual_seed(1)


def pytest_collection_modifyitems(items):
    """Everything in this folder needs a GPU; without one it is skipped, and says why."""
    for item in items:
        if "/tests/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))
