"""Networks of others, built: what their factories may do, and what is refused."""

import argparse
import contextlib
import os
import socket
import sys
import urllib.error
import urllib.request

import pytest
import torch
from torch import nn

from dabench.base.errors import UnsupportedError
from dabench.network.build import build_network, notes_of


class Doubles(nn.Module):
    def forward(self, x):
        return 2 * x


def its_call():
    network = Doubles()
    network.compile()
    return nn.Sequential(network)


def its_forward():
    network = Doubles()
    network.forward = torch.compile(network.forward)
    return network


def by_a_wrapper():
    return nn.Sequential(torch.compile(Doubles()))


def left_alone():
    network = Doubles()
    network.forward = torch.compiler.disable(network.forward)
    return network


def fetches():
    torch.hub.download_url_to_file("https://example.org/a.pth", "a.pth")


def fetches_itself():
    urllib.request.urlretrieve("https://example.org/a.pth", "a.pth")


def keeps_what_it_fetched():
    with contextlib.suppress(urllib.error.URLError):
        urllib.request.urlopen("http://example.org/a.pth")
    return Doubles()


def reads_the_command_line():
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=4)
    return nn.Conv2d(3, parser.parse_args().width, 1)


def takes_weights_apart():
    network = Doubles()
    network.weight = nn.Parameter(torch.zeros(1))
    network.weight = torch.hub.load_state_dict_from_url("https://example.org/a.pth")["w"]
    return network


@pytest.fixture(autouse=True)
def _path_kept(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("factory", [its_call, its_forward, by_a_wrapper])
def test_what_its_factory_compiled_is_refused(factory):
    with pytest.raises(UnsupportedError, match="is compiled by its factory"):
        build_network(f"{__file__}:{factory.__name__}")


def test_what_is_kept_from_the_compiler_is_not_compiled():
    assert build_network(f"{__file__}:{left_alone.__name__}").training


def test_a_file_that_a_factory_fetches_is_refused():
    with pytest.raises(UnsupportedError, match=r"a\.pth into a file.*--pretrained on lets it"):
        build_network(f"{__file__}:{fetches.__name__}")


def test_what_a_factory_fetches_itself_is_refused_and_named():
    with pytest.raises(UnsupportedError, match=r"from example\.org; --pretrained on lets it"):
        build_network(f"{__file__}:{fetches_itself.__name__}")
    assert socket.getaddrinfo("localhost", 80)


def test_a_factory_that_goes_on_without_a_network_is_built(monkeypatch):
    # A proxy on this machine would ask for others.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    note = notes_of(build_network(f"{__file__}:{keeps_what_it_fetched.__name__}"))
    assert "what example.org holds" in note
    assert "no_proxy" not in os.environ


def test_a_factory_that_cannot_do_without_weights_says_so():
    with pytest.raises(UnsupportedError, match=r"TypeError: cannot assign .*--pretrained on"):
        build_network(f"{__file__}:{takes_weights_apart.__name__}")


def test_a_factory_that_reads_the_command_line_gets_none_of_ours(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dabench", "flops", "--width", "x"])
    assert build_network(f"{__file__}:{reads_the_command_line.__name__}").out_channels == 4
    assert sys.argv[1:] == ["flops", "--width", "x"]
