"""Networks of others, built: what their factories may do, and what is refused."""

import argparse
import contextlib
import functools
import os
import socket
import sys
import types
import urllib.error
import urllib.request
from unittest import mock

import pytest
import torch
from torch import hub, nn

from dabench.base.errors import UnsupportedError
from dabench.network.build import build_network, notes_of
from dabench.network.pretrained import weights_left_out


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


def wrapped(function):
    @functools.wraps(function)
    def decorated(*args, **kwargs):
        return function(*args, **kwargs)

    return decorated


@pytest.mark.parametrize("made", [functools.partial, wrapped, lambda each: mock.Mock(wraps=each)])
def test_loaders_of_any_kind_are_left_out_and_put_back(made, monkeypatch):
    for name in ("load_state_dict_from_url", "download_url_to_file"):
        monkeypatch.setattr(hub, name, made(getattr(hub, name)))
    before = hub.load_state_dict_from_url, hub.download_url_to_file, nn.Module.load_state_dict
    with weights_left_out() as left_out:
        hub.load_state_dict_from_url("https://example.org/net-1.pth")
        with weights_left_out() as inner:
            hub.load_state_dict_from_url("https://example.org/net-2.pth")
        hub.load_state_dict_from_url("https://example.org/net-3.pth")
    assert (left_out, inner) == (["net-1.pth", "net-3.pth"], ["net-2.pth"])
    after = hub.load_state_dict_from_url, hub.download_url_to_file, nn.Module.load_state_dict
    assert after == before


def test_what_cannot_be_replaced_leaves_all_as_it_was(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models._builder", types.ModuleType("builder"))
    codes = [each.__code__ for each in (hub.load_state_dict_from_url, hub.download_url_to_file)]
    finders = list(sys.meta_path)
    with pytest.raises(AttributeError, match="load_pretrained"), weights_left_out():
        pass
    assert codes == [
        each.__code__ for each in (hub.load_state_dict_from_url, hub.download_url_to_file)
    ]
    assert sys.meta_path == finders
