"""hyperpd: prefill/decode disaggregated LLM inference for Amazon SageMaker HyperPod."""

__version__ = "0.1.0"
