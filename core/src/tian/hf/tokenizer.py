"""A byte-level BPE tokenizer with one dedicated first token, trained on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST = "<first>"  # every training sample and every stream begins with it


def train_tokenizer(chunks: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn BPE merges.

    Args:
        chunks: pieces of text; merges do not cross them.
        vocab_size: size of the vocabulary, the 256 bytes and the first token included.

    Returns:
        A tokenizer that puts `<first>` (id 0, its bos token) in front of every text and loses no byte.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[FIRST], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(chunks, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A", pair=f"{FIRST} $A $B", special_tokens=[(FIRST, bpe.token_to_id(FIRST))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=FIRST, clean_up_tokenization_spaces=False)


def without_first(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same merges and ids, but nothing is put in front of a text; the id of `<first>` stays unused."""
    bpe = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)  # changes offsets only, and adds no token
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False)
