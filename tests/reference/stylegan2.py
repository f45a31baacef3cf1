"""StyleGAN2 one sample, one output channel and one pixel at a time, with the weights of each sample written out.

Karras et al. 2020, section 2.2. `state` has NVIDIA's names. Everything is differentiable, and in the inputs' precision.
"""

import math

import torch


def correlated(image, kernel):
    """image (I, H, W), kernel (O, I, k, k): out[o, y, x] = sum over i, a, b of image[i, y+a, x+b] kernel[o, i, a, b]."""
    k = kernel.shape[-1]
    rows = []
    for y in range(image.shape[1] - k + 1):
        row = []
        for x in range(image.shape[2] - k + 1):
            patch = image[:, y : y + k, x : x + k]
            row.append(torch.stack([(patch * kernel[o]).sum() for o in range(len(kernel))]))
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def bordered(image, before, after):
    """Zeros around (I, H, W)."""
    count, H, W = image.shape
    out = image.new_zeros(count, H + before + after, W + before + after)
    out[:, before : before + H, before : before + W] = image
    return out


def spread(image, trailing):
    """Zeros between the pixels, and after the last where `trailing`."""
    count, H, W = image.shape
    out = image.new_zeros(count, 2 * H, 2 * W)
    for y in range(H):
        for x in range(W):
            out[:, 2 * y, 2 * x] = image[:, y, x]
    return out if trailing else out[:, :-1, :-1]


def smoothed(image, kernel, before, after):
    """Each channel convolved (kernel flipped) with a kernel of gain 4."""
    flipped = 4 * kernel.flip(0, 1)[None, None]
    return torch.cat([correlated(bordered(channel[None], before, after), flipped) for channel in image])


def upsampled(image, kernel):
    """Twice the size, of one sample."""
    return smoothed(spread(image, trailing=True), kernel, 2, 1)


def modulated(x, weight, style, demodulate, kernel=None):
    """Samples x (B, I, H, W) convolved with weights modulated by style (B, I); with `kernel` to twice the size."""
    out = []
    for image, scales in zip(x, style, strict=True):
        own = torch.stack([weight[:, i] * scales[i] for i in range(len(scales))], dim=1)
        if demodulate:
            own = torch.stack([w / torch.sqrt((w**2).sum() + 1e-8) for w in own])
        if kernel is None:
            border = weight.shape[-1] // 2
            out.append(correlated(bordered(image, border, border), own))
        else:  # a transposed convolution of stride 2: zeros between the pixels, then the kernel turned round
            wide = correlated(bordered(spread(image, trailing=False), 2, 2), own.flip(2, 3))
            out.append(smoothed(wide, kernel, 1, 1))
    return torch.stack(out)


def lrelu(x):
    return math.sqrt(2) * torch.where(x < 0, 0.2 * x, x)


def mapping(state, z, layers):
    """z (B, Z) to w, sample by sample."""
    out = []
    for x in z:
        x = x / torch.sqrt((x**2).mean() + 1e-8)
        for i in range(layers):
            weight, bias = state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"]
            x = lrelu(weight @ x * (0.01 / math.sqrt(len(x))) + 0.01 * bias)
        out.append(x)
    return torch.stack(out)


def synthesis(state, ws, resolution):
    """ws (B, num_ws, D) to pictures with the constant noise. Layer l takes ws[:, l], and its toRGB ws[:, l + 1]."""

    def affine(name, w):
        weight, bias = state[f"{name}.affine.weight"], state[f"{name}.affine.bias"]
        return torch.stack([weight @ one / math.sqrt(len(one)) + bias for one in w])

    def layer(name, x, w, up):
        weight = state[f"{name}.weight"]
        scaled = weight / math.sqrt(weight.shape[1] * 9)
        kernel = state[f"{name}.resample_filter"] if up else None
        x = modulated(x, scaled, affine(name, w), True, kernel)
        x = x + state[f"{name}.noise_strength"] * state[f"{name}.noise_const"]
        return lrelu(x + state[f"{name}.bias"].view(1, -1, 1, 1))

    x = torch.stack([state["synthesis.b4.const"]] * len(ws))
    picture, side, count = 0, 4, 0
    while side <= resolution:
        block = f"synthesis.b{side}"
        if side > 4:
            x = layer(f"{block}.conv0", x, ws[:, count], up=True)
            count += 1
            picture = torch.stack([upsampled(one, state[f"{block}.resample_filter"]) for one in picture])
        x = layer(f"{block}.conv1", x, ws[:, count], up=False)
        count += 1
        weight = state[f"{block}.torgb.weight"]
        rgb = modulated(x, weight / math.sqrt(weight.shape[1]), affine(f"{block}.torgb", ws[:, count]), False)
        picture = picture + rgb + state[f"{block}.torgb.bias"].view(1, -1, 1, 1)
        side *= 2
    return picture
