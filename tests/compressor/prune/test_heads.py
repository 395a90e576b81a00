"""Attention heads: found, ranked, and really removed."""

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.prune.attention import SlimAttention
from flyweight.compressor.passes.prune.attentions import Deaf, find_attentions
from flyweight.compressor.passes.prune.head_scores import HeadImportance, heads_to_keep
from flyweight.compressor.passes.prune.heads import PruneHeads
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings

MakeContext = Callable[..., Context]


class Separate(nn.Module):
    """BERT's attention: three projections, four heads of eight features, reshapes with their number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.query, self.key, self.value = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.out = nn.Linear(32, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, length, _ = tokens.shape
        layers, normed = (self.query, self.key, self.value), self.norm(tokens)
        q, k, v = (layer(normed).view(rows, length, 4, 8).permute(0, 2, 1, 3) for layer in layers)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v
        return tokens + self.out(mixed.permute(0, 2, 1, 3).reshape(rows, length, 32))


class Fused(nn.Module):
    """One projection for all three, split by a reshape, as vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, length, _ = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).reshape(rows, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return tokens + self.out(mixed.transpose(1, 2).reshape(rows, length, 32))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.attention(tokens, tokens, tokens)[0]


class Net(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.blocks, self.head = nn.Sequential(kind(), kind()), nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(tokens).mean(1))


def network(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(kind).eval()


KINDS = [Separate, Fused, Whole]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("importance", list(HeadImportance))
def test_half_the_heads_are_half_the_projections(
    kind: type[nn.Module], importance: HeadImportance, tokens: DataSet, make_context: MakeContext
) -> None:
    module = network(kind)
    step = PruneHeads(0.5, importance, Scope.LAYER)
    result = step(model_of(module, tokens), make_context(tokens))
    before = sum(parameter.numel() for parameter in module.parameters())
    after = sum(parameter.numel() for parameter in result.model.torch_module().parameters())
    # Of each attention, half of three projections with biases and half of the output's weights.
    assert before - after == 2 * (3 * (16 * 32 + 16) + 32 * 16)
    assert "4 of 8 heads were removed, in 2 of 2 attentions" in result.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_gives_nothing_can_go_without_changing_an_answer(
    kind: type[nn.Module], tokens: DataSet, make_context: MakeContext
) -> None:
    module = network(kind)
    _, attentions = find_attentions(module, [torch.from_numpy(tokens.inputs["tokens"][:2])])
    for attention, head in zip(attentions, (1, 3), strict=True):
        Deaf(module, attention, [head]).__enter__()
    for importance in HeadImportance:
        result = PruneHeads(0.25, importance)(model_of(module, tokens), make_context(tokens))
        assert result.changed
        inputs = torch.from_numpy(tokens.inputs["tokens"])
        torch.testing.assert_close(result.model.torch_module()(inputs), module(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [Separate, Whole])
def test_what_is_left_runs_in_onnxruntime_with_any_batch(
    kind: type[nn.Module], tokens: DataSet, make_context: MakeContext
) -> None:
    context = make_context(tokens)
    slim = PruneHeads(0.5)(model_of(network(kind), tokens), context).model
    session = ort.InferenceSession(
        str(Export()(slim, context).model.onnx_path()), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"tokens": tokens.inputs["tokens"][:7]})
    expected = slim.torch_module()(torch.from_numpy(tokens.inputs["tokens"][:7]))
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-4, atol=1e-5)


def test_the_original_is_not_touched(tokens: DataSet, make_context: MakeContext) -> None:
    module = network(Separate)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    PruneHeads(0.5)(model_of(module, tokens), make_context(tokens))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_heads_can_be_retrained(tokens: DataSet, make_context: MakeContext) -> None:
    module = network(Whole)
    step = PruneHeads(0.5, HeadImportance.MAGNITUDE, training=TrainingSettings(epochs=1))
    result = step(model_of(module, tokens), make_context(tokens, baseline=module))
    assert result.notes[-1].startswith("Trained on 48 samples with the original's answers")


def test_heads_are_ranked_together_and_every_attention_keeps_its_best() -> None:
    scores = {"weak": np.array([0.1, 0.2, 0.3]), "strong": np.array([5.0, 6.0, 7.0])}
    assert heads_to_keep(scores, 0.5, Scope.GLOBAL) == {"weak": [2], "strong": [1, 2]}
    assert heads_to_keep(scores, 0.34, Scope.LAYER) == {"weak": [1, 2], "strong": [1, 2]}


def test_heads_that_are_all_alike_do_not_all_go() -> None:
    assert heads_to_keep({"a": np.zeros(2), "b": np.zeros(2)}, 0.9, Scope.GLOBAL) == {"a": [0], "b": [0]}


def test_no_ratio_is_no_change(tokens: DataSet, make_context: MakeContext) -> None:
    model = model_of(network(Separate), tokens)
    result = PruneHeads(0.0)(model, make_context(tokens))
    assert result.model is model


@pytest.mark.parametrize("batch_first", [True, False])
def test_all_heads_kept_answer_as_the_whole_attention_with_masks(batch_first: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = nn.MultiheadAttention(16, 4, batch_first=batch_first, kdim=12, vdim=10).eval()
        shapes = [(2, 5, 16), (2, 6, 12), (2, 6, 10)]
        q, k, v = (torch.randn(shape) for shape in shapes)
        mask = torch.randn(5, 6)
        heads = torch.randn(2 * 4, 5, 6)
    if not batch_first:
        q, k, v = (given.transpose(0, 1) for given in (q, k, v))
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    slim = SlimAttention(whole, [0, 1, 2, 3]).eval()
    for options in (
        {},
        {"key_padding_mask": padding},
        {"attn_mask": mask},
        {"attn_mask": mask > 0.5, "average_attn_weights": False},
        {"attn_mask": heads},
    ):
        for found, expected in zip(slim(q, k, v, **options), whole(q, k, v, **options), strict=True):
            torch.testing.assert_close(found, expected)
    assert slim(q, k, v, need_weights=False)[1] is None


def test_masks_of_each_head_go_with_the_heads() -> None:
    whole = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    q, masks = torch.randn(1, 5, 16), torch.randn(4, 5, 5)
    slim = SlimAttention(whole, [1, 3]).eval()
    _, expected = whole(q, q, q, attn_mask=masks, average_attn_weights=False)
    _, found = slim(q, q, q, attn_mask=masks, average_attn_weights=False)
    torch.testing.assert_close(found, expected[:, [1, 3]])


def test_a_transformer_layer_takes_attention_with_fewer_heads(
    tokens: DataSet, make_context: MakeContext
) -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    result = PruneHeads(0.5, scope=Scope.LAYER)(model_of(encoder, tokens), make_context(tokens))
    slim = result.model.torch_module().layers[0].self_attn
    assert slim.query.out_features == slim.out_proj.in_features == 16


def test_attention_with_keys_of_its_own_is_refused(tokens: DataSet, make_context: MakeContext) -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True, add_bias_kv=True)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.attention(tokens, tokens, tokens)[0]

    with pytest.raises(PassError, match="heads of attention cannot be cut"):
        PruneHeads(0.5)(model_of(Biased().eval(), tokens), make_context(tokens))


def test_a_bias_for_each_head_is_noticed(tokens: DataSet, make_context: MakeContext) -> None:
    class Relative(nn.Module):
        """A learnt bias for each head would keep its four rows."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = Separate()
            self.bias = nn.Parameter(torch.randn(4, 1, 1))

        def forward(self, tokens: Tensor) -> Tensor:
            rows, length, _ = tokens.shape
            layers = (self.inner.query, self.inner.key, self.inner.value)
            q, k, v = (layer(tokens).view(rows, length, 4, 8).permute(0, 2, 1, 3) for layer in layers)
            mixed = torch.softmax(q @ k.transpose(-1, -2) + self.bias, dim=-1) @ v
            return self.inner.out(mixed.permute(0, 2, 1, 3).reshape(rows, length, 32))

    with pytest.raises(PassError, match=r"cannot be cut.*fewer heads"):
        PruneHeads(0.5)(model_of(Relative().eval(), tokens), make_context(tokens))


def test_a_module_without_attention_is_refused(tokens: DataSet, make_context: MakeContext) -> None:
    with pytest.raises(PassError, match="no attention with more than one head"):
        PruneHeads()(model_of(nn.Linear(32, 4).eval(), tokens), make_context(tokens))


def test_a_module_that_cannot_be_traced_is_refused(tokens: DataSet, make_context: MakeContext) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.layer(tokens) if tokens.sum() > 0 else -self.layer(tokens)

    with pytest.raises(PassError, match=r"cannot be traced.*ONNX file"):
        PruneHeads()(model_of(Branching().eval(), tokens), make_context(tokens))


def test_graphs_are_found_in_as_they_are(tokens: DataSet) -> None:
    graph = fx.symbolic_trace(network(Separate))
    _, attentions = find_attentions(graph, [torch.from_numpy(tokens.inputs["tokens"][:2])])
    assert [(entry.name, entry.heads, entry.size) for entry in attentions] == [
        ("blocks.0.out", 4, 8),
        ("blocks.1.out", 4, 8),
    ]


def test_measuring_stops_when_the_time_is_up(tokens: DataSet, make_context: MakeContext) -> None:
    with pytest.raises(OutOfTimeError):
        PruneHeads()(model_of(network(Separate), tokens), make_context(tokens, deadline=0.0))


@pytest.mark.parametrize(
    ("options", "word"), [({"ratio": 1.5}, "ratio"), ({"scope": Scope.SENSITIVITY}, "layer or global")]
)
def test_impossible_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        PruneHeads(**options)
