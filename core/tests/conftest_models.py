"""Small random models of every supported architecture."""


def make_model(kind, *, layers=2, kv_heads=2, heads=4, d_model=32, vocab=61, context=512, seed=0, **more):
    """A random model in eval mode: llama, mistral, qwen2 (grouped heads) or gpt_neox (partial rotary)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    common = {
        "vocab_size": vocab,
        "hidden_size": d_model,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if kind != "gpt_neox":
        common["num_key_value_heads"] = kv_heads
    if kind == "mistral":
        common["sliding_window"] = None
    config = AutoConfig.for_model(kind, **(common | more))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():  # the default initialisation is so small that attention hardly matters
            if p.dim() > 1:
                p.mul_(6)
    return model
