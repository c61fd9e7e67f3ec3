"""The refinement model: a language model fine-tuned on (raw, synthetic) -> fused triplets (CapsFusion, section 3.3)."""
