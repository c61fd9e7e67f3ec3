"""Text generation on this machine, for the engines `embedded` and `transformers`, and what steers it in any engine.

`loading` loads models; `generate` runs a causal language model on batches of similar length with a shared prefix.
`guidance` says what may stand in an answer: `guide` and `constrain` make a model in this process follow it, `grammar`
makes vLLM follow it. `coverage` favours facts that an answer lacks so far. `int8` makes linear layers fast on a CPU.
`weights` finds models and LoRA adapters; the shipped adapter is in `adapters`.
"""
