"""Networks whose symmetries `benchmarks/zoo.py` derives: name -> (network, shape of one point).

Sizes are small where a configuration allows it. Networks of tokens read integers that are computed
from the inputs, and return one tensor.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Build = Callable[[], tuple[nn.Module, tuple[int, ...]]]

IMAGE = (3, 32, 32)
LENGTH, VOCABULARY = 6, 50


class Tokens(nn.Module):
    """A language model of integers that are computed from the inputs."""

    def __init__(self, net: nn.Module, **keywords: Any) -> None:
        super().__init__()
        self.net, self.keywords = net, keywords

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.abs() * 100).long() % VOCABULARY
        out = self.net(input_ids=tokens, **self.keywords)
        return out.logits if "logits" in out else out.last_hidden_state


class Output(nn.Module):
    """The entry of a network's output that a name selects."""

    def __init__(self, net: nn.Module, name: str, argument: str) -> None:
        super().__init__()
        self.net, self.name, self.argument = net, name, argument

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.net(**{self.argument: x}), self.name)


class OnGraph(nn.Module):
    """Layers of messages on a ring with chords; the points are graphs beside each other."""

    def __init__(self, layers: list[nn.Module], width: int, nodes: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, 2)
        ring = torch.arange(nodes)
        edges = torch.stack([ring, (ring + 1) % nodes])
        chords = torch.stack([ring, (ring + 2) % nodes])
        self.register_buffer("edges", torch.cat([edges, edges.flip(0), chords], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        points, nodes = x.shape[:2]
        shifts = torch.arange(points).repeat_interleave(self.edges.shape[1]) * nodes
        edges = self.edges.repeat(1, points) + shifts
        h = x.flatten(0, 1)
        for layer in self.layers:
            h = layer(h, edges).relu()
        return self.head(h).view(points, nodes, -1).mean(1)


# -- written here


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **keywords: Any) -> None:
        super().__init__()
        self.rnn = kind(3, 8, batch_first=True, **keywords)
        directions = 2 if keywords.get("bidirectional") else 1
        self.head = nn.Linear((keywords.get("proj_size") or 8) * directions, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(1))


class Cells(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = kind(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Gated(nn.Module):
    def __init__(self, gate: str) -> None:
        super().__init__()
        self.embed, self.gate = nn.Linear(3, 6), gate
        self.norm = nn.RMSNorm(6)
        self.up, self.down = nn.Linear(6, 16), nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        u = self.up(self.norm(h))
        if self.gate == "glu":
            g = F.glu(u, dim=-1)
        else:
            a, b = u.chunk(2, dim=-1)
            g = F.silu(a) * b
        return self.head(h + self.down(g))


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(3, 4)
        self.mix, self.head = nn.Bilinear(5, 4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.a(x).relu(), self.b(x).tanh()).relu())


class Experts(nn.Module):
    """A mixture of experts: dense, or the best of them alone."""

    def __init__(self, *, sparse: bool, number: int = 4, width: int = 5) -> None:
        super().__init__()
        self.embed, self.router = nn.Linear(3, 6), nn.Linear(6, number)
        self.up = nn.Parameter(torch.randn(number, 6, width))
        self.down = nn.Parameter(torch.randn(number, width, 6))
        self.head, self.sparse = nn.Linear(6, 2), sparse

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        weights = self.router(h).softmax(-1)
        if self.sparse:
            best = weights.topk(2, dim=-1)
            weights = torch.zeros_like(weights).scatter(-1, best.indices, best.values)
        inner = F.gelu(torch.einsum("ni,eih->neh", h, self.up))
        return self.head(torch.einsum("neh,eho,ne->no", inner, self.down, weights))


class GroupedQuery(nn.Module):
    """Attention of more query heads than key heads, with or without rotary positions."""

    def __init__(self, heads: int, key_heads: int, *, rotary: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.heads, self.key_heads, self.rotary = heads, key_heads, rotary
        self.q = nn.Linear(8, heads * 4)
        self.k, self.v = nn.Linear(8, key_heads * 4), nn.Linear(8, key_heads * 4)
        self.o, self.head = nn.Linear(heads * 4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        n, t, _ = h.shape
        q = self.q(h).view(n, t, self.heads, 4).transpose(1, 2)
        k, v = (
            layer(h).view(n, t, self.key_heads, 4).transpose(1, 2) for layer in (self.k, self.v)
        )
        if self.rotary:
            q, k = self._rotate(q, t), self._rotate(k, t)
        k, v = (each.repeat_interleave(self.heads // self.key_heads, dim=1) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.head((h + self.o(mixed.transpose(1, 2).flatten(2))).mean(1))

    @staticmethod
    def _rotate(x: Tensor, length: int) -> Tensor:
        angle = torch.arange(length)[:, None] * torch.tensor([1.0, 0.1])
        cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        left, right = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-right, left], dim=-1) * sin


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.third = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.channel_shuffle(self.second(self.first(x).relu()).relu(), 2)
        return self.head(self.third(h).relu().mean((2, 3)))


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.pixel_shuffle(self.first(x).relu(), 2)).flatten(1)


class Branches(nn.Module):
    """Parallel branches of the same kind, added."""

    def __init__(self, number: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6)) for _ in range(number)
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(sum(branch(h) for branch in self.branches))


def _convolutional(*layers: nn.Module, channels: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, 2),
    )  # fmt: skip


_OWN: dict[str, Build] = {
    "lstm, 2 layers": lambda: (Recurrent(nn.LSTM, num_layers=2), (5, 3)),
    "lstm, bidirectional": lambda: (Recurrent(nn.LSTM, bidirectional=True), (5, 3)),
    "lstm, projected": lambda: (Recurrent(nn.LSTM, proj_size=4), (5, 3)),
    "gru, 2 layers": lambda: (Recurrent(nn.GRU, num_layers=2), (5, 3)),
    "rnn, tanh": lambda: (Recurrent(nn.RNN), (5, 3)),
    "rnn, relu": lambda: (Recurrent(nn.RNN, nonlinearity="relu"), (5, 3)),
    "lstm cell": lambda: (Cells(nn.LSTMCell), (5, 3)),
    "gru cell": lambda: (Cells(nn.GRUCell), (5, 3)),
    "rnn cell": lambda: (Cells(nn.RNNCell), (5, 3)),
    "glu": lambda: (Gated("glu"), (3,)),
    "swiglu": lambda: (Gated("swiglu"), (3,)),
    "bilinear": lambda: (Bilinear(), (3,)),
    "experts, dense": lambda: (Experts(sparse=False), (3,)),
    "experts, sparse": lambda: (Experts(sparse=True), (3,)),
    "grouped queries": lambda: (GroupedQuery(4, 2, rotary=False), (5, 3)),
    "grouped queries, rotary": lambda: (GroupedQuery(4, 2, rotary=True), (5, 3)),
    "multi-query": lambda: (GroupedQuery(4, 1, rotary=False), (5, 3)),
    "channel shuffle": lambda: (Shuffled(), (3, 8, 8)),
    "pixel shuffle": lambda: (SuperResolution(), (3, 8, 8)),
    "local response norm": lambda: (_convolutional(nn.LocalResponseNorm(3)), (3, 8, 8)),
    "weight norm": lambda: (
        _convolutional(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.Tanh()),
        (3, 8, 8),
    ),
    "equal branches": lambda: (Branches(), (3,)),
}

# -- torchvision


def _torchvision(name: str, shape: tuple[int, ...] = IMAGE, **keywords: Any) -> Build:
    def build() -> tuple[nn.Module, tuple[int, ...]]:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **keywords), shape

    return build


_TORCHVISION: dict[str, Build] = {
    name: _torchvision(name)
    for name in (
        *("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "squeezenet1_1"),
        *("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5"),
        *("mnasnet0_5", "regnet_y_400mf", "convnext_tiny"),
    )
}
_TORCHVISION |= {
    "vgg11_bn": _torchvision("vgg11_bn", num_classes=10),
    "alexnet": _torchvision("alexnet", (3, 64, 64), num_classes=10),
    "googlenet": _torchvision("googlenet", init_weights=False, aux_logits=False),
    "inception_v3": _torchvision("inception_v3", (3, 75, 75), init_weights=False, aux_logits=False),
    "swin_t": _torchvision("swin_t", (3, 64, 64)),
    "swin_v2_t": _torchvision("swin_v2_t", (3, 64, 64)),
}
_TORCHVISION["vit"] = lambda: (_vit(), IMAGE)


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=12, num_heads=4, hidden_dim=64, mlp_dim=128
    )


# -- timm


def _timm(name: str, shape: tuple[int, ...] = IMAGE, **keywords: Any) -> Build:
    def build() -> tuple[nn.Module, tuple[int, ...]]:
        import timm

        return timm.create_model(name, pretrained=False, **keywords), shape

    return build


_SIZED = {"img_size": 32, "patch_size": 8}
_TIMM: dict[str, Build] = {
    "vit_tiny": _timm("vit_tiny_patch16_224", **_SIZED),
    "deit3_small": _timm("deit3_small_patch16_224", **_SIZED, depth=6),
    "beit_base": _timm("beit_base_patch16_224", **_SIZED, embed_dim=96, num_heads=4),
    "eva02_tiny": _timm("eva02_tiny_patch14_224", **_SIZED),
    "swin_tiny": _timm("swin_tiny_patch4_window7_224", (3, 64, 64), img_size=64, window_size=4),
    "swinv2_cr": _timm("swinv2_cr_tiny_224", (3, 64, 64), img_size=64, window_size=4),
    "mixer_s32": _timm("mixer_s32_224", (3, 64, 64), img_size=64),
    "resmlp_12": _timm("resmlp_12_224", img_size=32),
    "gmlp_ti16": _timm("gmlp_ti16_224", img_size=32),
    "cait_xxs24": _timm("cait_xxs24_224", **_SIZED, depth=4),
    "xcit_nano": _timm("xcit_nano_12_p16_224", (3, 64, 64), img_size=64, depth=4),
    "convmixer": _timm("convmixer_768_32"),
    "convnext_atto": _timm("convnext_atto"),
    "convnextv2_atto": _timm("convnextv2_atto"),
    "poolformer_s12": _timm("poolformer_s12", (3, 64, 64)),
    "ghostnet_050": _timm("ghostnet_050"),
    "res2net50": _timm("res2net50_14w_8s"),
    "mobilevit_xxs": _timm("mobilevit_xxs", (3, 64, 64)),
    "edgenext_xx_small": _timm("edgenext_xx_small", (3, 64, 64)),
    "pvt_v2_b0": _timm("pvt_v2_b0", (3, 64, 64)),
    "levit_128s": _timm("levit_128s", (3, 64, 64), img_size=64),
    "efficientformer_l1": _timm("efficientformer_l1", (3, 224, 224)),
    "coat_lite_tiny": _timm("coat_lite_tiny", (3, 64, 64), img_size=64),
    "twins_svt_small": _timm("twins_svt_small", (3, 64, 64), img_size=64, depths=(1, 1, 2, 1)),
    "focalnet_tiny": _timm("focalnet_tiny_srf", (3, 64, 64)),
    "hrnet_w18_small": _timm("hrnet_w18_small", (3, 64, 64)),
    "coatnet": _timm("test_coatnet", (3, 160, 160)),
    "maxvit": _timm("test_maxvit", (3, 160, 160)),
    "mambaout": _timm("test_mambaout"),
    "nfnet": _timm("test_nfnet"),
    "efficientnet_evos": _timm("test_efficientnet_evos"),
    "vit, relative positions": _timm("test_vit_relpos", (3, 160, 160)),
}

# -- transformers

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def _hugging_face(
    kind: str, task: str = "ForCausalLM", *, pass_on: dict[str, Any] | None = None, **own: Any
) -> Build:
    def build() -> tuple[nn.Module, tuple[int, ...]]:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**own)
        config._experts_implementation = "eager"  # the grouped product has no float64
        net = getattr(transformers, f"{kind}{task}")(config)
        return Tokens(net, **(pass_on or {"use_cache": False})), (LENGTH,)

    return build


_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_PLAIN: dict[str, Any] = {"return_dict": True}
_HUGGING_FACE: dict[str, Build] = {
    "bert": _hugging_face("Bert", "Model", pass_on=_PLAIN, **_SMALL),
    "bert, 12 layers": _hugging_face(
        "Bert", "Model", pass_on=_PLAIN, **{**_SMALL, "num_hidden_layers": 12, "hidden_size": 64}
    ),
    "roberta": _hugging_face("Roberta", "Model", pass_on=_PLAIN, **_SMALL),
    "distilbert": _hugging_face(
        "DistilBert", "Model", pass_on=_PLAIN, vocab_size=VOCABULARY, dim=32, hidden_dim=48,
        n_layers=2, n_heads=4,
    ),
    "albert": _hugging_face("Albert", "Model", pass_on=_PLAIN, **_SMALL, embedding_size=16),
    "electra": _hugging_face("Electra", "Model", pass_on=_PLAIN, **_SMALL, embedding_size=16),
    "gpt2": _hugging_face(
        "GPT2", "LMHeadModel", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4
    ),
    "gpt_neox": _hugging_face("GPTNeoX", **_SMALL),
    "gptj": _hugging_face(
        "GPTJ", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, rotary_dim=4
    ),
    "bloom": _hugging_face("Bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "falcon": _hugging_face(
        "Falcon", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    ),
    "opt": _hugging_face(
        "OPT", vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, word_embed_proj_dim=32, max_position_embeddings=32,
    ),
    "llama": _hugging_face("Llama", **_GROUPED),
    "mistral": _hugging_face("Mistral", **_GROUPED),
    "qwen2": _hugging_face("Qwen2", **_GROUPED),
    "gemma": _hugging_face("Gemma", **_GROUPED, head_dim=8),
    "phi": _hugging_face("Phi", **_SMALL),
    "phi3": _hugging_face("Phi3", **_GROUPED, pad_token_id=0),
    "mixtral": _hugging_face("Mixtral", **_GROUPED, num_local_experts=4),
    "mamba": _hugging_face("Mamba", vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2),
    "t5, encoder": _hugging_face(
        "T5", "EncoderModel", pass_on=_PLAIN, vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48,
        num_layers=2, num_heads=4,
    ),
    "deberta_v2": _hugging_face(
        "DebertaV2", "Model", pass_on=_PLAIN, **_SMALL, relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    ),
}  # fmt: skip


def _hugging_face_vit() -> tuple[nn.Module, tuple[int, ...]]:
    from transformers import ViTConfig, ViTModel

    own = {key: value for key, value in _SMALL.items() if key != "vocab_size"}
    net = ViTModel(ViTConfig(**own, image_size=32, patch_size=8))
    return Output(net, "last_hidden_state", "pixel_values"), IMAGE


_HUGGING_FACE["vit"] = _hugging_face_vit

# -- graphs


def _graph(layer: Callable[[Any, int, int], nn.Module], width: int = 8) -> Build:
    def build() -> tuple[nn.Module, tuple[int, ...]]:
        from torch_geometric import nn as gnn

        return OnGraph([layer(gnn, 3, width), layer(gnn, width, width)], width), (6, 3)

    return build


def _gat(gnn: Any, inputs: int, outputs: int, kind: str = "GATConv") -> nn.Module:
    return getattr(gnn, kind)(inputs, outputs // 2, heads=2)


def _mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 7), nn.ReLU(), nn.Linear(7, outputs))


_GRAPHS: dict[str, Build] = {
    "gcn": _graph(lambda gnn, i, o: gnn.GCNConv(i, o)),
    "sage": _graph(lambda gnn, i, o: gnn.SAGEConv(i, o)),
    "sage, max": _graph(lambda gnn, i, o: gnn.SAGEConv(i, o, aggr="max")),
    "gat": _graph(_gat),
    "gatv2": _graph(lambda gnn, i, o: _gat(gnn, i, o, "GATv2Conv")),
    "gin": _graph(lambda gnn, i, o: gnn.GINConv(_mlp(i, o))),
    "graph conv": _graph(lambda gnn, i, o: gnn.GraphConv(i, o)),
    "cheb": _graph(lambda gnn, i, o: gnn.ChebConv(i, o, K=2)),
    "transformer conv": _graph(lambda gnn, i, o: _gat(gnn, i, o, "TransformerConv")),
    "gated graph": _graph(lambda gnn, i, o: gnn.GatedGraphConv(o, num_layers=2)),
    "edge conv": _graph(lambda gnn, i, o: gnn.EdgeConv(_mlp(2 * i, o))),
}

NETWORKS: dict[str, Build] = {
    f"{library}: {name}": build
    for library, networks in {
        "own": _OWN,
        "torchvision": _TORCHVISION,
        "timm": _TIMM,
        "transformers": _HUGGING_FACE,
        "pyg": _GRAPHS,
    }.items()
    for name, build in networks.items()
}
