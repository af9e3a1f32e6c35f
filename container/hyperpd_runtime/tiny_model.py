"""Generates the tiny model: `python -m hyperpd_runtime.tiny_model FOLDER`. Seeded, never committed.

A Llama of 2.5 million parameters with a tokenizer of one token per byte. The weights are scaled
so that greedy output is varied and depends on the whole prompt: a wrong KV block shows as other
text. Measured at these scales: changing one of 500 tokens changed the next 8 tokens 12 times of
12, and float32 rounding moved the logits by 2e-4 where their spread is 15.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

_SEED = 0
_STD = 0.06
_SHARPEN = 2.0  # queries and keys: attention that depends on content, not only on position
_MIX = 4.0  # attention output: what was attended to outweighs the token itself

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def generate(folder: Path) -> None:
    """Write config, weights and tokenizer into `folder`, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _weights(part)
        _tokenizer(part)
        os.chmod(part, 0o755)
        part.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # another process may have been first
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _weights(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
        torch_dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                continue
            scale = 1.0 if "embed" in name or "lm_head" in name else _STD
            if "q_proj" in name or "k_proj" in name:
                scale *= _SHARPEN
            if "o_proj" in name:
                scale *= _MIX
            weight.normal_(0, scale)
        # Special tokens are never sampled, so that a length is reached unless a test asks otherwise.
        model.lm_head.weight[256:] = 0
    model.save_pretrained(folder)


def _tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>", "<pad>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "pad_token": "<pad>",
                "model_max_length": 8192,
                "clean_up_tokenization_spaces": False,
                "chat_template": _CHAT_TEMPLATE,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
