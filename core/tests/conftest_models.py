"""Small random models of every supported architecture."""


def make_model(kind, *, layers=2, kv_heads=2, heads=4, d_model=32, vocab=61, context=512, seed=0, **more):
    """A random model in eval mode of any supported architecture.

    `falcon` has one key/value head, `falcon-new` grouped ones, `falcon-alibi` a bias in place of rotary positions.
    """
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
    if kind not in ("gpt_neox", "opt", "mpt") and not kind.startswith("falcon"):
        common["num_key_value_heads"] = kv_heads
    if kind == "opt":
        common |= {"ffn_dim": 48, "word_embed_proj_dim": d_model}
    if kind == "mpt":
        del common["max_position_embeddings"]
        common |= {"max_seq_len": context, "expansion_ratio": 2, "use_cache": True}
    if kind.startswith("falcon"):
        common |= {"new_decoder_architecture": kind == "falcon-new", "alibi": kind == "falcon-alibi"}
        common |= {"num_kv_heads": kv_heads, "multi_query": True, "ffn_hidden_size": 48}
        kind = "falcon"
    if kind == "mistral":
        common["sliding_window"] = None
    config = AutoConfig.for_model(kind, **(common | more))
    # Eager Falcon adds its ALiBi bias twice, in the mask and to the logits; its default adds it once.
    plain = "sdpa" if getattr(config, "alibi", False) is True else "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=plain).eval()
    with torch.no_grad():
        for p in model.parameters():  # the default initialisation is so small that attention hardly matters
            if p.dim() > 1:
                p.mul_(6)
    return model
