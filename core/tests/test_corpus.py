"""Texts and the streams cut from them."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tian.errors import DataError, InvalidInput
from tian.hf import corpus, token_cache
from tian.hf.corpus import (
    MIN_CHARS,
    cut_streams,
    encode,
    first_tokens,
    load_streams,
    package_files,
    read_file,
    read_text,
)
from tian.hf.loading import load_tokenizer
from tian.hf.options import TextSource
from tian.hf.tokenizer import train_tokenizer


@settings(max_examples=200)
@given(
    n=st.integers(1, 300),
    first=st.lists(st.just(-1), max_size=2),
    streams=st.integers(1, 12),
    tokens=st.integers(3, 80),
    seed=st.integers(0, 2**31),
)
def test_streams_have_the_asked_length_start_with_the_first_token_and_never_overlap(n, first, streams, tokens, seed):
    ids = torch.arange(n)
    cut = cut_streams(ids, first=first, streams=streams, tokens=tokens, seed=seed)
    body = tokens - len(first)
    assert cut.dtype == torch.int64
    assert cut.shape == (max(1, min(streams, n // body)), len(first) + min(body, n))
    assert (cut[:, : len(first)] == -1).all()
    rest = cut[:, len(first) :]
    assert (rest[:, 1:] - rest[:, :-1] == 1).all()  # each is one piece of the text
    assert rest.min() >= 0
    assert (rest[1:, 0] > rest[:-1, -1]).all()  # in order, and nothing is read twice
    assert rest.max() < n
    assert torch.equal(cut, cut_streams(ids, first=first, streams=streams, tokens=tokens, seed=seed))
    if seed == 0:
        assert rest[0, 0] == 0


def test_another_seed_reads_other_places():
    ids = torch.arange(10_000)
    starts = {tuple(cut_streams(ids, first=[], streams=4, tokens=50, seed=s)[:, 0].tolist()) for s in range(20)}
    assert len(starts) == 20
    firsts = torch.tensor([s[0] for s in starts])
    assert firsts.min() < 1000  # anywhere in the text, the beginning and the end included
    assert max(s[-1] for s in starts) > 9000


@given(n=st.integers(2, 300), streams=st.integers(2, 12), tokens=st.integers(2, 40))
def test_streams_spread_evenly_over_the_whole_text(n, streams, tokens):
    assume(n // tokens >= 2)
    cut = cut_streams(torch.arange(n), first=[], streams=streams, tokens=tokens)
    assert cut[-1, -1] == n - 1
    gaps = cut[1:, 0] - cut[:-1, 0]
    assert gaps.max() - gaps.min() <= 1


def test_a_text_shorter_than_a_stream_gives_one_shorter_stream():
    assert cut_streams(torch.arange(3), first=[7], streams=4, tokens=10).tolist() == [[7, 0, 1, 2]]


def test_a_file_of_the_user_is_read_as_it_is(tmp_path):
    text = "Grüße, 世界\n" * 20
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    read = read_text(TextSource(path=str(tmp_path / "a.txt")))
    assert read.text == text
    assert read.label == "a.txt"
    assert read.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_line_ends_are_kept(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n" * 20)
    assert read_file(tmp_path / "a.txt") == "one\r\ntwo\n" * 20


@pytest.mark.parametrize("length", [MIN_CHARS - 1, MIN_CHARS])
def test_a_text_needs_some_characters(tmp_path, length):
    (tmp_path / "a.txt").write_text("  " + "x" * length + "\n")
    if length < MIN_CHARS:
        with pytest.raises(DataError, match=f"holds {length} characters; at least {MIN_CHARS}"):
            read_file(tmp_path / "a.txt")
    else:
        assert len(read_file(tmp_path / "a.txt")) == length + 3


def test_a_package_is_read_in_the_order_of_its_paths_without_its_tests(tmp_path, monkeypatch):
    for name, source in {
        "b.py": "B\n",
        "a/__init__.py": "A\n",
        "__init__.py": "ROOT\n",
        "tests/test_x.py": "TEST\n",
        "a/tests/y.py": "TEST\n",
        "data.txt": "DATA\n",
    }.items():
        path = tmp_path / "corpus_pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [p.relative_to(tmp_path / "corpus_pkg").as_posix() for p in package_files("corpus_pkg")] == [
        "__init__.py",
        "a/__init__.py",
        "b.py",
    ]
    read = read_text(TextSource(packages=["corpus_pkg"]))
    assert read.text.split() == ["ROOT", "A", "B"]
    assert "corpus_pkg" in read.label
    assert read_text(TextSource(packages=["corpus_pkg.a"])).text.split() == ["A"]


@pytest.mark.parametrize(
    "name", ["no_such_package", "not a name", "os", "../etc", "", "networkx.", "networkx.absent", "os.path"]
)
def test_what_is_no_installed_package_is_named(name):
    with pytest.raises(DataError, match="not installed") as caught:
        package_files(name)
    assert repr(name) in caught.value.message


def test_no_source_at_all_is_refused():
    with pytest.raises(InvalidInput, match="no text to read"):
        TextSource()


# -- streams of a named text, and the cache of their ids --------------------------------------------------------------


@pytest.fixture
def long_text(tmp_path, monkeypatch):
    """A text worth keeping, its source, the shipped tokenizer, and a fresh cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "text.txt"
    file.write_text("The quick brown fox, 17 + 4. " * 4000, encoding="utf-8")
    return TextSource(path=str(file)), load_tokenizer(None)


def streams_of(source, tokenizer, **more):
    return load_streams(source, tokenizer, **{"streams": 3, "tokens": 50, "seed": 4, **more})[0]


def cached_files(tmp_path):
    return sorted((tmp_path / "cache" / "tian" / "tokens").glob("*"))


def test_streams_are_the_encoded_text_cut(long_text):
    source, tokenizer = long_text
    text = read_text(source)
    want = cut_streams(encode(tokenizer, text.text), first=first_tokens(tokenizer), streams=3, tokens=50, seed=4)
    found, again = load_streams(source, tokenizer, streams=3, tokens=50, seed=4)
    assert torch.equal(found, want)
    assert again == text
    assert torch.equal(streams_of(source, tokenizer), want)  # now from the cache
    assert found.dtype == torch.int64


def test_a_long_text_is_encoded_once(long_text, tmp_path, monkeypatch):
    source, tokenizer = long_text
    first = streams_of(source, tokenizer)
    assert len(cached_files(tmp_path)) == 1

    def refuse(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(corpus, "encode", refuse)
    assert torch.equal(streams_of(source, tokenizer), first)
    with pytest.raises(AssertionError, match="again"):
        streams_of(TextSource(packages=["tian"]), tokenizer)  # another text
    other = train_tokenizer(["some other words"], vocab_size=300)
    with pytest.raises(AssertionError, match="again"):
        streams_of(source, other)  # another tokenizer


@pytest.mark.parametrize("damage", [b"", b"torn", None])
def test_a_damaged_cache_is_replaced(long_text, tmp_path, damage):
    source, tokenizer = long_text
    first = streams_of(source, tokenizer)
    (file,) = cached_files(tmp_path)
    good = file.read_bytes()
    file.write_bytes(good[:-4] if damage is None else damage)
    assert torch.equal(streams_of(source, tokenizer), first)
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(long_text, tmp_path, monkeypatch):
    source, tokenizer = long_text
    first = streams_of(source, tokenizer)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert torch.equal(streams_of(source, tokenizer), first)


def test_a_short_text_is_not_kept_and_old_files_go(long_text, tmp_path, monkeypatch):
    source, tokenizer = long_text
    short = tmp_path / "short.txt"
    short.write_text("word " * 50, encoding="utf-8")
    streams_of(TextSource(path=str(short)), tokenizer)
    assert cached_files(tmp_path) == []
    monkeypatch.setattr(token_cache, "KEPT", 2)
    for i in range(4):
        Path(source.path).write_text(f"number {i} " * 12_000, encoding="utf-8")
        streams_of(source, tokenizer)
    assert len(cached_files(tmp_path)) == 2


def test_the_books_of_a_folder_are_one_text_in_order_of_name(tmp_path):
    for name, word in (("b.txt", "second "), ("a.txt", "first ")):
        (tmp_path / name).write_text(word * 40)
    (tmp_path / "notes.md").write_text("not a book")
    found = read_text(TextSource(path=str(tmp_path)))
    assert found.text == "first " * 40 + "\n" + "second " * 40
    assert found.label == tmp_path.name
