"""Text generation on this machine, shared by the engines `embedded` and `transformers`.

`loading` loads models; `generate` runs a causal language model on batches of similar length with a shared prefix.
`coverage` favours facts that an answer lacks so far. `int8` makes linear layers fast on a CPU. `weights` finds models
and LoRA adapters; the shipped adapter is in `adapters`.
"""
