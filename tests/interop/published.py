"""Names and shapes of the released state dicts, written from their published tables."""


def _conv(name, joints, inputs, outputs):
    return {
        f"{name}.W": (2, inputs, outputs),
        f"{name}.M": (joints, outputs),
        f"{name}.adj2": (joints, joints),
        f"{name}.bias": (outputs,),
    }


def _norm(name, width):
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{n}": (width,) for n in vectors} | {f"{name}.num_batches_tracked": ()}


def _linear(name, outputs, inputs, *ones):
    return {f"{name}.weight": (outputs, inputs, *ones), f"{name}.bias": (outputs,)}


def _layer(name, joints, inputs, width):
    return _conv(f"{name}.gconv", joints, inputs, width) | _norm(f"{name}.bn", width)


def _residual(name, joints, width):
    first, second = (_layer(f"{name}.gconv{j}", joints, width, width) for j in (1, 2))
    return first | second


def _non_local(name, width):
    entries = {}
    for part in ("g", "theta", "phi"):
        entries |= _linear(f"{name}.{part}", width // 2, width, 1, 1)
    return entries | _linear(f"{name}.W.0", width, width // 2, 1, 1) | _norm(f"{name}.W.1", width)


def _grouped(name, width):
    entries = {f"{name}.concat_project.0.weight": (1, width, 1, 1)}
    for part in ("g.0", "theta", "phi.0"):
        entries |= _linear(f"{name}.{part}", width // 2, width, 1)
    return entries | _linear(f"{name}.W.0", width, width // 2, 1) | _norm(f"{name}.W.1", width)


def diffupose_layout(joints, width, blocks=4):
    """DiffuPose's denoiser, third time block and batch counters included."""
    entries = _layer("gconv_input.0", joints, 5, width) | _conv("gconv_output", joints, width, 5)
    for i in range(blocks):
        entries |= _residual(f"gconv_layers.{i}", joints, width)
    half = width // 2
    entries |= _linear("time_mlp.1", half, width // 8) | _linear("time_mlp.3", half, half)
    for i in (1, 2, 3):
        entries |= _linear(f"block{i}.mlp.1", 2 * width, half)
    return entries | _non_local("non_local", width)


def modgcn_layout(joints, width, blocks=4, *, non_local=False, grouped=False):
    """Modulated-GCN; with groups residual layers are the even ones."""
    entries = _layer("gconv_input.0", joints, 2, width) | _conv("gconv_output", joints, width, 3)
    for i in range(blocks):
        entries |= _residual(f"gconv_layers.{2 * i if grouped else i}", joints, width)
    if grouped:
        entries |= _grouped("gconv_input.1.non_local", width)
        for i in range(blocks):
            entries |= _grouped(f"gconv_layers.{2 * i + 1}.non_local", width)
    return entries | (_non_local("non_local", width) if non_local else {})


BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
    *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    "p2_loss_weight",
)
