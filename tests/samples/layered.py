"""A small model of layers as a spec's text, in any sizes and by any recipe: for what depends on how large it is."""

from __future__ import annotations

_TEXT = """use std

block Layer[D, F] : x[T, D] -> [T, D] {
  ln : LayerNorm[D]
  up : Linear[D, F]
  down : Linear[F, D]
  return x + dropout(down(gelu(up(ln(x)))), DROP)
}

model M : tokens[T] in V -> logits[T, V] {
  dim V = 256, D = WIDTH, F = 4 * WIDTH, L = LAYERS
  embed  : Embedding[V, D]
  blocks : chain L of Layer[D, F]
  head   : Linear[D, V]
  return head(blocks(embed(tokens)))
}

train t {
  model = M
  dims = [T = TOKENS]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss = mean(cross_entropy[V](logits, target))
  batch = ROWS
  lr = 0.01
  KEYS
}
"""


def layered(keys: str, *, width: int = 64, layers: int = 4, tokens: int = 16, rows: int = 4, drop: float = 0.0) -> str:
    """keys: the lines of the recipe `t` that are the test's own, `steps` among them."""
    said = {"KEYS": keys, "WIDTH": width, "LAYERS": layers, "TOKENS": tokens, "ROWS": rows, "DROP": drop}
    text = _TEXT
    for word, value in said.items():
        text = text.replace(word, str(value))
    return text
