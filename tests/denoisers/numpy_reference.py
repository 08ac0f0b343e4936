"""The graph networks in plain NumPy, float64, written from the papers and layer descriptions."""

import math

import jax
import numpy as np


def random_variables(model, *inputs, seed=0):
    """Float64 variables in which no leaf keeps its initial value, so that none can hide."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return 1 + 0.3 * np.abs(rng.normal(size=leaf.shape))
        fan = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
        return rng.normal(size=leaf.shape) / np.sqrt(fan)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def affinity(parents):
    """Row-normalised neighbours with a unit diagonal, rounded to float32 as released."""
    J = len(parents)
    A = np.zeros((J, J), np.float32)
    for child, parent in enumerate(parents):
        if parent >= 0:
            A[child, parent] = A[parent, child] = 1
    A = A / A.sum(axis=1, keepdims=True)
    A[range(J), range(J)] = 1
    return A.astype(np.float64)


def graph_conv(p, A, x):
    """Joint by joint: what joint i hears from itself through W0, and from the others through W1."""
    S = A + p["adj2"]
    S = (S + S.T) / 2
    J = len(S)
    y = np.zeros((*x.shape[:-1], p["W"].shape[-1]))
    for i in range(J):
        for j in range(J):
            W = p["W"][0] if i == j else p["W"][1]
            y[..., i, :] += S[i, j] * p["M"][j] * (x[..., j, :] @ W)
    return y + p["bias"]


def batch_norm(p, stats, x, *, train=False):
    axes = tuple(range(x.ndim - 1))
    mean, var = (x.mean(axes), x.var(axes)) if train else (stats["mean"], stats["var"])
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def graph_layer(p, stats, A, x, *, train=False):
    x = batch_norm(p["bn"], stats["bn"], graph_conv(p["conv"], A, x), train=train)
    return np.maximum(x, 0)


def residual_block(p, stats, A, x, *, train=False):
    h = graph_layer(p["first"], stats["first"], A, x, train=train)
    return x + graph_layer(p["second"], stats["second"], A, h, train=train)


def non_local(p, stats, x, *, train=False):
    theta, phi, g = (x @ p[f"{n}_kernel"] + p[f"{n}_bias"] for n in ("theta", "phi", "g"))
    logits = theta @ np.swapaxes(phi, -1, -2)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = weights @ g @ p["out"]["kernel"] + p["out"]["bias"]
    return x + batch_norm(p["bn"], stats["bn"], y, train=train)


def grouped_non_local(p, stats, groups, x, *, pools=None):
    """Attention from joints to groups, entry by entry; pools are positions in the groups' order."""
    order = [j for group in groups for j in group]
    size = len(groups[0])
    z = x[..., order, :]
    theta, phi, g = (z @ p[n]["kernel"] + p[n]["bias"] for n in ("theta", "phi", "g"))
    N = len(order) // size if pools is None else len(pools)
    pools = pools or [range(n * size, (n + 1) * size) for n in range(N)]
    phi, g = (np.stack([a[..., list(pool), :].max(-2) for pool in pools], -2) for a in (phi, g))
    f = np.zeros((*z.shape[:-1], N))
    for i in range(len(order)):
        for n in range(N):
            pair = np.concatenate([theta[..., i, :], phi[..., n, :]], -1)
            f[..., i, n] = np.maximum(pair @ p["project"], 0) / N
    y = batch_norm(p["bn"], stats["bn"], f @ g @ p["out"]["kernel"] + p["out"]["bias"])
    restored = np.zeros_like(x)
    restored[..., order, :] = y
    return x + restored


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sinusoid(t, width):
    half = width // 2
    frequencies = [math.exp(-k * math.log(10000) / (half - 1)) for k in range(half)]
    angles = np.asarray(t, np.float64)[..., None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], -1)


def time_block(p, x, embedding):
    projected = silu(embedding) @ p["mlp"]["kernel"] + p["mlp"]["bias"]
    scale, shift = np.split(projected[..., None, :], 2, axis=-1)
    return silu(x * (scale + 1) + shift)


def diffupose(variables, parents, width, cond, x_t, t, *, train=False):
    p, stats = variables["params"], variables["batch_stats"]
    A = affinity(parents)
    time = p["time_mlp"]
    embedding = gelu(sinusoid(t, width // 8) @ time["in"]["kernel"] + time["in"]["bias"])
    embedding = embedding @ time["out"]["kernel"] + time["out"]["bias"]
    h = np.concatenate([x_t, cond], -1)
    h = graph_layer(p["gconv_input"], stats["gconv_input"], A, h, train=train)
    for name in sorted(n for n in p if n.startswith("gconv_layers")):
        h = residual_block(p[name], stats[name], A, h, train=train)
    h = time_block(p["block1"], h, embedding)
    if "attention" in p:
        h = non_local(p["attention"], stats["attention"], h, train=train)
    h = time_block(p["block2"], h, embedding)
    return graph_conv(p["gconv_output"], A, h)


def modulated_gcn(variables, parents, groups, keypoints):
    p, stats = variables["params"], variables["batch_stats"]
    A = affinity(parents)

    def attend(h, i):
        name = f"grouped_{i}"
        return h if groups is None else grouped_non_local(p[name], stats[name], groups, h)

    h = attend(graph_layer(p["gconv_input"], stats["gconv_input"], A, keypoints), 0)
    for i, name in enumerate(sorted(n for n in p if n.startswith("gconv_layers"))):
        h = attend(residual_block(p[name], stats[name], A, h), i + 1)
    if "attention" in p:
        h = non_local(p["attention"], stats["attention"], h)
    return graph_conv(p["gconv_output"], A, h)
