"""Fine-tune a language model as a fuser on (raw, synthetic, fused) triplets (CapsFusion, section 3.3), and score it."""
