"""Encodings against slow loops and other people's formulas."""

import math

import numpy as np
import pytest
import torch
from latent_prior import OptionError
from latent_prior.host.embedded.hash_grid import GridEncoding, grid_levels
from latent_prior.host.embedded.networks import VanillaMLP, get_encoding, get_mlp
from scipy.special import sph_harm_y

PRIMES = [1, 2654435761, 805459861]


def slow_grid(encoding, x, base, growth, log2_size):
    """One point, one level, one corner at a time, in Python integers and float32 positions."""
    table = encoding.params.detach().numpy().reshape(-1, encoding.n_features)
    rows = []
    for point in x.numpy():
        row, offset = [], 0
        for level in range(len(encoding.levels)):
            scale = np.float32(2.0 ** (level * math.log2(growth)) * base - 1)
            resolution = math.ceil(scale) + 1
            size = -(-(resolution**3) // 8) * 8
            size = min(size, 2**log2_size)
            position = point * scale + np.float32(0.5)
            cell = np.floor(position).astype(int)
            fraction = (position - cell).astype(np.float64)
            total = np.zeros(encoding.n_features)
            for corner in range(8):
                bits = [corner >> axis & 1 for axis in range(3)]
                weight = math.prod(f if bit else 1 - f for f, bit in zip(fraction, bits, strict=True))
                vertex = [(int(c) + bit) % 2**32 for c, bit in zip(cell, bits, strict=True)]
                if size < resolution**3:
                    index = 0
                    for coordinate, prime in zip(vertex, PRIMES, strict=True):
                        index ^= coordinate * prime % 2**32
                else:
                    index = sum(c * resolution**axis for axis, c in enumerate(vertex)) % 2**32
                total += weight * table[offset + index % size]
            row.append(total)
            offset += size
        rows.append(np.concatenate(row))
    assert offset == len(table)
    return torch.from_numpy(np.stack(rows))


def test_grid_encoding_against_a_loop():
    config = {
        "n_levels": 5,
        "n_features_per_level": 3,
        "log2_hashmap_size": 9,
        "base_resolution": 4,
        "per_level_scale": 1.447269237440378,
    }
    torch.manual_seed(0)
    encoding = GridEncoding(3, config)
    with torch.no_grad():
        encoding.params.normal_()
    x = torch.rand(40, 3)
    x[0], x[1], x[2] = 0.0, 1.0, torch.tensor([-0.3, 1.2, 0.5])  # the borders, and outside
    expected = slow_grid(encoding, x, 4, config["per_level_scale"], 9)
    assert {level.hashed for level in encoding.levels} == {False, True}
    torch.testing.assert_close(encoding(x).double(), expected.double(), atol=1e-4, rtol=0)  # measured 1.6e-5


def test_grid_levels_of_the_default_config():
    # worked out by hand: 16 and 23 vertices fit 2^19 entries densely (rounded up to a multiple of 8); 4096 do not
    levels = grid_levels(3, 16, 16, 1.447269237440378, 19)
    assert [(level.resolution, level.size, level.hashed) for level in levels[:2]] == [
        (16, 4096, False),
        (24, 13824, False),
    ]
    assert levels[-1].resolution in (4096, 4097) and levels[-1].size == 2**19 and levels[-1].hashed
    assert [level.offset for level in levels[:3]] == [0, 4096, 4096 + 13824]


def test_grid_encoding_gradients():
    torch.manual_seed(0)
    config = {"n_levels": 3, "log2_hashmap_size": 5, "base_resolution": 3, "per_level_scale": 1.7}
    encoding = GridEncoding(2, config).double()
    encoding.params.data.normal_()
    x = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)

    def encode(params, x):
        return torch.func.functional_call(encoding, {"params": params}, (x,))

    assert torch.autograd.gradcheck(encode, (encoding.params, x))


def test_spherical_harmonics_against_scipy():
    encoding = get_encoding(3, {"otype": "SphericalHarmonics", "degree": 4})
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    out = encoding((directions + 1) / 2)
    x, y, z = directions.numpy().T
    column = 0
    for band in range(4):
        for order in range(-band, band + 1):
            # real harmonics from scipy's complex ones, which carry the Condon-Shortley phase themselves
            complex_value = sph_harm_y(band, abs(order), np.arccos(z), np.arctan2(y, x))
            part = complex_value.imag if order < 0 else complex_value.real
            expected = part * (math.sqrt(2) if order else 1)
            np.testing.assert_allclose(out[:, column].numpy(), expected, atol=1e-12, err_msg=f"{band} {order}")
            column += 1
    assert column == encoding.n_output_dims == 16


def test_coordinates_can_be_included():
    encoding = get_encoding(3, {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 6, "include_xyz": True})
    x = torch.rand(5, 3)
    assert encoding.n_output_dims == 7
    torch.testing.assert_close(encoding(x)[:, :3], 2 * x - 1)
    torch.testing.assert_close(encoding(x)[:, 3:], encoding.encoding(x))


def test_parameter_names_are_threestudios():
    encoding = get_encoding(3, {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 6})
    assert set(encoding.state_dict()) == {"encoding.encoding.params"}
    network = get_mlp(4, 2, {"otype": "VanillaMLP", "n_neurons": 8, "n_hidden_layers": 2})
    assert set(network.state_dict()) == {"layers.0.weight", "layers.2.weight", "layers.4.weight"}


def test_mlp_is_matrix_products_with_relu_between():
    config = {"otype": "VanillaMLP", "n_neurons": 8, "n_hidden_layers": 1, "output_activation": "sigmoid"}
    torch.manual_seed(0)
    network = get_mlp(4, 2, config)
    torch.manual_seed(0)  # the order in which the layers draw is part of the contract
    first, last = torch.nn.Linear(4, 8, bias=False).weight, torch.nn.Linear(8, 2, bias=False).weight
    x = torch.randn(3, 4)
    torch.testing.assert_close(network(x), torch.sigmoid((x @ first.T).clamp(min=0) @ last.T))


def test_unknown_names_are_errors_that_name_the_key():
    with pytest.raises(ValueError, match="pos_encoding_config or dir_encoding_config.otype is 'HashMap'"):
        get_encoding(3, {"otype": "HashMap"})
    with pytest.raises(ValueError, match="mlp_network_config.otype is 'FullyFusedMLP'"):
        get_mlp(3, 1, {"otype": "FullyFusedMLP"})
    with pytest.raises(ValueError, match="activation is 'Tanh'"):
        VanillaMLP(3, 1, {"n_neurons": 2, "n_hidden_layers": 1, "activation": "Tanh"})
    with pytest.raises(ValueError, match="degree"):
        get_encoding(3, {"otype": "SphericalHarmonics", "degree": 9})
    with pytest.raises(ValueError, match="interpolation is 'Cubic'; expected Linear"):
        get_encoding(3, {"otype": "HashGrid", "interpolation": "Cubic"})
    with pytest.raises(ValueError, match="is 'Grid'; expected HashGrid, Grid with type Hash"):
        get_encoding(3, {"otype": "Grid", "type": "Sparse"})


def test_a_value_of_no_use_is_the_users_error():
    with pytest.raises(OptionError, match="dir_encoding_config.n_levels is 'many'; expected a whole number"):
        get_encoding(3, {"otype": "HashGrid", "n_levels": "many"})
    with pytest.raises(OptionError, match="mlp_network_config.n_neurons is 'wide'"):
        get_mlp(3, 1, {"otype": "VanillaMLP", "n_neurons": "wide", "n_hidden_layers": 1})


@pytest.mark.parametrize("config", [{}, {"n_levels": 2}])
def test_a_config_with_a_key_missing_says_which(config):
    with pytest.raises(ValueError, match="pos_encoding_config .* has no otype; it replaces the default"):
        get_encoding(3, config)
    with pytest.raises(ValueError, match="mlp_network_config has no otype"):
        get_mlp(3, 1, {"n_neurons": 8})
