"""Generates the tiny models: `python -m hyperpd_runtime.tiny_model NAME FOLDER`. Seeded, never committed.

    tiny-llama     dense, 2.5 million parameters
    tiny-moe       Qwen3's mixture of experts: 4 experts, 2 of them for each token
    tiny-gpt-oss   gpt-oss's shape: mixture of experts, attention sinks, sliding window beside full
                   attention (two groups of KV cache), 8 KV heads so that TP4 and TP8 divide them

All have a tokenizer of one token per byte. The weights are scaled so that greedy output is varied
and depends on the whole prompt: a wrong KV block shows as other text. Measured for tiny-llama at
these scales: changing one of 500 tokens changed the next 8 tokens 12 times of 12, and float32
rounding moved the logits by 2e-4 where their spread is 15; tiny-moe and tiny-gpt-oss: 8 times of 8.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_SEED = 0
_STD = 0.06
_SHARPEN = 2.0  # queries and keys: attention that depends on content, not only on position
_QK_NORM = 2.0  # the same where queries and keys are normalised (tiny-moe)
_MIX = 4.0  # attention output: what was attended to outweighs the token itself

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def generate(name: str, folder: Path) -> None:
    """Write config, weights and tokenizer of the model `name` into `folder`, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _weights(name, part)
        _tokenizer(part)
        os.chmod(part, 0o755)
        part.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # another process may have been first
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


_SHAPE = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "torch_dtype": "float32",
}
_EXPERTS = {"num_experts_per_tok": 2, "intermediate_size": 256}


def _model(name: str) -> Any:
    import transformers

    if name == "tiny-llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE))
    if name == "tiny-moe":
        moe = {**_SHAPE, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 256, "norm_topk_prob": True}
        return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**moe))
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 128}
    gpt_oss = {**_SHAPE, **_EXPERTS, **heads, "num_local_experts": 4, "max_position_embeddings": 131072}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**gpt_oss))


def _weights(name: str, folder: Path) -> None:
    import torch

    torch.manual_seed(_SEED)
    model = _model(name)
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if "q_norm" in parameter or "k_norm" in parameter:
                weight.fill_(_QK_NORM)
            if "norm" in parameter:
                continue
            scale = 1.0 if "embed" in parameter or "lm_head" in parameter or "sinks" in parameter else _STD
            if "q_proj" in parameter or "k_proj" in parameter:
                scale *= _SHARPEN
            if "o_proj" in parameter:
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
    generate(sys.argv[1], Path(sys.argv[2]))
