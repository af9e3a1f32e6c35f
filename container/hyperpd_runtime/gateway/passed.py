"""Requests with no second leg: any worker that decodes answers them alone. An explicit list; all else is 404.

What a model does not do its engine refuses, in its own words. Administration never passes: adapters and
sessions would reach one worker and not the others, everything else of an engine is not for clients.
"""

from __future__ import annotations

from collections.abc import Mapping

_TEXT = "model prompt messages add_special_tokens add_generation_prompt continue_final_message chat_template_kwargs"
_MESSAGES = "model messages system tools tool_choice thinking output_config chat_template_kwargs"
_EMBED = "model input encoding_format dimensions user truncate_prompt_tokens add_special_tokens"
_SCORE = "model queries documents truncate_prompt_tokens"
_RERANK = "model query documents top_n truncate_prompt_tokens"

PASSED: Mapping[str, frozenset[str]] = {
    path: frozenset(fields.split())
    for path, fields in {
        "/tokenize": f"{_TEXT} tools return_token_strs",
        "/detokenize": "model tokens",
        "/v1/messages/count_tokens": _MESSAGES,
        "/v1/embeddings": _EMBED,
        "/v1/score": _SCORE,
        "/v1/rerank": _RERANK,
        "/classify": "model input truncate_prompt_tokens add_special_tokens",
    }.items()
}
# Whose prompts an engine keeps in its prefix cache.
CACHED = ("/v1/embeddings", "/v1/score", "/v1/rerank", "/classify")
# Said in words, because people look for them; 404 says the rest.
ADAPTERS = ("/adapters", "/adapters/{name}", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")
NO_ADAPTERS = (
    "adapters are not changed while serving: one role could have one that the other lacks."
    " Name them in the recipe (model.adapters); every worker loads them at its start"
)
