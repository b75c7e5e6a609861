"""Our CLIP is transformers' and, with a residual network, the one of the paper: both ways."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`: transformers")

from safetensors.torch import save_file  # noqa: E402

from diffusion_jax.interop import load_clip, save_clip  # noqa: E402
from diffusion_jax.interop.clip_layouts import openai_rows  # noqa: E402
from diffusion_jax.interop.clip_sizes import shapes_of  # noqa: E402
from diffusion_jax.interop.layouts import their_shapes  # noqa: E402
from diffusion_jax.models import (  # noqa: E402
    CLIP,
    FrozenBatchNorm,
    ModifiedResNet,
    TextTransformer,
)
from diffusion_jax.models.clip_vision import MEAN, STD  # noqa: E402

F = torch.nn.functional
VOCABULARY, LENGTH, SIDE = 60, 9, 24
END = VOCABULARY - 1
# heads, width, hidden, layers and patch; activation; the config's end, of which 2 is the legacy
SETTINGS = {
    "small": (2, 32, 128, 2, 8, "quick_gelu", END),
    "larger": (4, 64, 160, 3, 6, "gelu", 2),
}
TOKENS = np.array([[0, 5, 17, 33, END, 0, 0, 0, 0], [0, 58, END, END, END, END, 3, 3, 3]])


def config(name):
    heads, width, hidden, layers, patch, activation, end = SETTINGS[name]
    shared = {
        "hidden_act": activation,
        "intermediate_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "projection_dim": 20,
    }
    text = transformers.CLIPTextConfig(
        hidden_size=width // 2 if name == "larger" else width,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=end,
        **shared,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=width, image_size=SIDE, patch_size=patch, **shared
    )
    return text, vision


def randomised(peer, seed=0):
    """Every parameter drawn, biases and norms too, so that none may be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in peer.named_parameters():
            z = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(z * (0.5 if "embedding" in name else p[0].numel() ** -0.5))
            elif p.ndim == 0:
                p.fill_(3.0)
            else:
                p.copy_(0.3 * z + (1.0 if "norm" in name and "weight" in name else 0.0))
    return peer.eval()


def whole(name):
    text, vision = config(name)
    settings = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
    return randomised(
        transformers.CLIPModel(transformers.CLIPConfig(projection_dim=20, **settings))
    )


def pictures(side=SIDE):
    """Ours in [-1, 1], NHWC, and theirs, normalised, NCHW."""
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    theirs = ((pixels + 1) / 2 - np.float32(MEAN)) / np.float32(STD)
    return jnp.asarray(pixels), torch.from_numpy(theirs.transpose(0, 3, 1, 2).copy())


def difference(ours, theirs) -> float:
    """The largest difference, relative to the largest value."""
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs.detach().numpy()))
    assert a.shape == b.shape and b.std() > 1e-2
    return float(np.abs(a - b).max() / np.abs(b).max())


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def compare(clip, params, peer):
    """Embeddings, logits and hidden states of both towers."""
    pixels, theirs = pictures()
    tokens = torch.from_numpy(TOKENS)
    with torch.no_grad():
        out = peer(input_ids=tokens, pixel_values=theirs)
        text = peer.text_model(tokens, output_hidden_states=True)
        vision = peer.vision_model(theirs, output_hidden_states=True)
        projected = peer.get_text_features(tokens).pooler_output
        normed = peer.vision_model.post_layernorm(vision.last_hidden_state)

    def ours(params, pixels, tokens):
        image, text, _ = clip.apply({"params": params}, pixels, tokens)
        given = image.embedding, text.embedding
        return image, text, clip.apply({"params": params}, *given, method="similarity")

    a, b, logits = jax.jit(ours)(params, pixels, jnp.asarray(TOKENS))
    differences = {
        "image": difference(a.embedding, out.image_embeds),
        "image tokens": difference(a.tokens, normed),
        "image penultimate": difference(a.penultimate, vision.hidden_states[-2]),
        "text": difference(b.embedding, out.text_embeds),
        "text pooled": difference(b.pooled, projected),
        "text tokens": difference(b.tokens, text.last_hidden_state),
        "text penultimate": difference(b.penultimate, text.hidden_states[-2]),
        "logits": difference(logits, out.logits_per_image),
    }
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("name", SETTINGS)
def test_what_transformers_saved_answers_the_same_here(name, tmp_path):
    peer = whole(name)
    peer.save_pretrained(tmp_path)
    clip, params = load_clip(tmp_path)
    assert clip.text.end == END
    compare(clip, params, peer)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_we_saved_answers_the_same_there(name, tmp_path):
    whole(name).save_pretrained(tmp_path / "theirs")
    clip, params = load_clip(tmp_path / "theirs")
    params = jax.tree.map(lambda x: 0.9 * x, params)
    save_clip(tmp_path / "ours", clip, params)
    peer, told = transformers.CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(clip, params, peer.eval())


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("CLIPTextModel", 0),
        ("CLIPTextModelWithProjection", 0),
        ("CLIPVisionModel", 1),
        ("CLIPVisionModelWithProjection", 1),
    ],
)
def test_one_tower_both_ways(kind, part, tmp_path):
    """Stable Diffusion's text encoders are such folders, in old versions with prefixed names."""
    known = getattr(transformers, kind)
    peer = randomised(known(config("small")[part]))
    peer.save_pretrained(tmp_path / "theirs")
    clip, params = load_clip(tmp_path / "theirs")
    save_clip(tmp_path / "ours", clip, params)
    again, told = known.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels, theirs = pictures()
    ours, inputs, method = (
        (jnp.asarray(TOKENS), torch.from_numpy(TOKENS), "encode_text"),
        (pixels, theirs, "encode_image"),
    )[part]
    y = jax.jit(lambda p: clip.apply({"params": p}, ours, method=method))(params)
    for model in (peer, again.eval()):
        with torch.no_grad():
            out = model(inputs)
        pooled = out[0] if kind.endswith("Projection") else out.pooler_output
        assert difference(y.pooled, pooled) < 1e-5
        if part == 0:
            assert difference(y.tokens, out.last_hidden_state) < 1e-5


class Reference:
    """CLIP's residual network in PyTorch's functions, from a state in OpenAI's layout.

    OpenCLIP, which has it too, needs a torchvision of the very build of PyTorch.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 2.4.
    """

    def __init__(self, tower, seed=0):
        self.tower, self.state = tower, {}
        self.generator = torch.Generator().manual_seed(seed)

    def drawn(self, name, *shape, spread=1.0, center=0.0):
        """The parameter of this name, drawn when it is first asked for."""
        if name not in self.state:
            z = torch.randn(shape, generator=self.generator)
            self.state[name] = spread * z + center
        return self.state[name]

    def conv(self, x, name, features, side=1, stride=1):
        shape = (features, x.shape[1], side, side)
        spread = (2 / (x.shape[1] * side * side)) ** 0.5
        weight = self.drawn(f"{name}.weight", *shape, spread=spread)
        return F.conv2d(x, weight, stride=stride, padding=side // 2)

    def norm(self, x, name):
        c = x.shape[1]
        mean = self.drawn(f"{name}.running_mean", c, spread=0.3)
        if f"{name}.running_var" not in self.state:
            self.state[f"{name}.running_var"] = torch.rand(c, generator=self.generator) + 0.5
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        weight = self.drawn(f"{name}.weight", c, spread=0.3, center=1.0)
        bias = self.drawn(f"{name}.bias", c, spread=0.3)
        return F.batch_norm(x, mean, self.state[f"{name}.running_var"], weight, bias)

    def block(self, x, name, planes, stride):
        h = F.relu(self.norm(self.conv(x, f"{name}.conv1", planes), f"{name}.bn1"))
        h = F.relu(self.norm(self.conv(h, f"{name}.conv2", planes, 3), f"{name}.bn2"))
        h = F.avg_pool2d(h, stride)
        h = self.norm(self.conv(h, f"{name}.conv3", 4 * planes), f"{name}.bn3")
        if stride > 1 or x.shape[1] != 4 * planes:
            x = self.conv(F.avg_pool2d(x, stride), f"{name}.downsample.0", 4 * planes)
            x = self.norm(x, f"{name}.downsample.1")
        return F.relu(h + x)

    def pool(self, x):
        c = x.shape[1]
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x])
        name, spread = "visual.attnpool", c**-0.5
        x = x + self.drawn(f"{name}.positional_embedding", len(x), c, spread=spread)[:, None]
        projections = {}
        for letter, features in (("q", c), ("k", c), ("v", c), ("c", self.tower.features)):
            weight = self.drawn(f"{name}.{letter}_proj.weight", features, c, spread=spread)
            projections[letter] = weight, self.drawn(f"{name}.{letter}_proj.bias", features)
        y, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=c,
            num_heads=self.tower.heads,
            q_proj_weight=projections["q"][0],
            k_proj_weight=projections["k"][0],
            v_proj_weight=projections["v"][0],
            in_proj_weight=None,
            in_proj_bias=torch.cat([projections[letter][1] for letter in "qkv"]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=projections["c"][0],
            out_proj_bias=projections["c"][1],
            use_separate_proj_weight=True,
            training=False,
            need_weights=False,
        )
        return y[0]

    def __call__(self, x):
        """The answer, and the grids after each stage."""
        w, name = self.tower.width, "visual"
        for i, c in enumerate((w // 2, w // 2, w), start=1):
            x = self.conv(x, f"{name}.conv{i}", c, 3, stride=2 if i == 1 else 1)
            x = F.relu(self.norm(x, f"{name}.bn{i}"))
        x, grids = F.avg_pool2d(x, 2), []
        for stage, depth in enumerate(self.tower.layers):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                x = self.block(x, f"{name}.layer{stage + 1}.{i}", w * 2**stage, stride)
            grids.append(x.flatten(2).permute(0, 2, 1))
        return self.pool(x), grids


def test_a_residual_network_in_openais_layout_answers_the_same(tmp_path):
    tower = ModifiedResNet(10, (1, 2, 1, 1), 8, 4, 64, norm=FrozenBatchNorm)
    reference = Reference(tower)
    pixels, theirs = pictures(64)
    with torch.no_grad():
        pooled, grids = reference(theirs)
    clip = CLIP(tower, TextTransformer(10, 11, 5, 64, 1, 1, end=10))
    state = dict(reference.state)
    ours = shapes_of(clip)
    for name, shape in their_shapes(openai_rows(clip, ours), ours).items():
        state.setdefault(name, torch.zeros(shape))  # the texts' half
    save_file(state, tmp_path / "clip.safetensors")
    found, params = load_clip(tmp_path / "clip.safetensors", clip=clip)
    y = jax.jit(lambda p: found.apply({"params": p}, pixels, method="encode_image"))(params)
    assert difference(y.pooled, pooled) < 1e-5
    assert difference(y.embedding, unit(pooled)) < 1e-5
    assert difference(y.tokens, grids[-1]) < 1e-5
    assert difference(y.penultimate, grids[-2]) < 1e-5
