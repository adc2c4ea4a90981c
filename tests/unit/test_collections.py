"""Networks of a checkout, found without running it."""

import pytest

from dabench.base.errors import UsageError
from dabench.plan.collections import networks_in, with_networks
from dabench.plan.grids import load_grids
from dabench.plan.references import Reference

FAST = """
import torch.nn as nn
from .modules import Block
from .backbone import Trunk as Body

class FastNet(nn.Module):
    def __init__(self, num_class=1, n_channel=3, act_type="relu"):
        super().__init__()
        self.head = Head(num_class)
        self.body = Body()

class Head(nn.Module):
    # A part of the other: it is no network.
    def __init__(self, num_class=1):
        super().__init__()

class Loss(nn.Module):
    def __init__(self, device):
        super().__init__()

class Config:
    def __init__(self, depth=1):
        self.depth = depth

if __name__ == "__main__":
    print(FastNet())
"""
DEEP = """
from torch.nn import Module

class Base(Module):
    pass

class DeepNet(Base):
    def __init__(self, classes, *, wide=False):
        super().__init__()

@register_model()
class Plain(Base):
    width = 3
"""


# Made for another file's network: a class that is only listed is one.
BACKBONE = """
from torch import nn

class Trunk(nn.Module):
    pass

class Alone(nn.Module):
    pass
"""
LISTED = "from .backbone import Alone, Trunk\nfrom .fast import FastNet\nALL = [Alone, FastNet]\n"


@pytest.fixture
def checkout(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "fast.py").write_text(FAST)
    (models / "deep.py").write_text(DEEP)
    (models / "broken.py").write_text("class Broken(nn.Module:\n")
    (tmp_path / "train.py").write_text("import torch.nn as nn\nclass Trainer(nn.Module): pass\n")
    return tmp_path


def test_networks_are_what_can_be_made_and_is_no_part(checkout):
    models = checkout / "models"
    assert networks_in(checkout) == [
        f"{models / 'deep.py'}:DeepNet(classes=19)",
        f"{models / 'deep.py'}:Plain",
        f"{models / 'fast.py'}:FastNet(num_class=19)",
    ]
    (models / "backbone.py").write_text(BACKBONE)
    (models / "__init__.py").write_text(LISTED)
    assert networks_in(checkout)[0] == f"{models / 'backbone.py'}:Alone"
    assert len(networks_in(checkout)) == 4
    (models / "backbone.py").unlink()
    assert Reference.of(networks_in(checkout)[0]).arguments == (("classes", 19),)


def test_a_checkout_without_a_folder_of_models_is_read_itself(tmp_path):
    (tmp_path / "net.py").write_text(FAST)
    assert networks_in(tmp_path) == [f"{tmp_path / 'net.py'}:FastNet(num_class=19)"]


def test_they_stand_behind_those_of_the_preset(checkout):
    ((grid, settings),) = load_grids("hub")
    found = with_networks(grid, checkout)
    assert found.models[:3] == grid.models
    assert len(found.models) == 6
    assert settings.launches == 3


def test_a_checkout_without_networks_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--source: no network in .*--model PATH.py:FACTORY"):
        networks_in(tmp_path)
    with pytest.raises(UsageError, match=r"--source: .*gone' is not allowed; it takes the folder"):
        networks_in(tmp_path / "gone")
