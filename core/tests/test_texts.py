"""What users bring is read strictly: a bad line is named with its number and what it lacks."""

import json

import pytest

from tian.errors import DataError
from tian.hf.options import TextSource
from tian.hf.texts import read_books, read_choices, read_documents, read_long

GOOD = {"context": "a", "choices": ["b", "c"], "gold": 1}
LONG = {"input": "why?", "context": "so", "answers": ["x"]}


def jsonl(path, *rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def test_questions_are_read_and_other_keys_and_blank_lines_left_alone(tmp_path):
    found = read_choices(jsonl(tmp_path / "q.jsonl", GOOD, "", {**GOOD, "id": 7, "gold": 0}))
    assert [(q.context, q.choices, q.gold) for q in found] == [("a", ("b", "c"), 1), ("a", ("b", "c"), 0)]
    assert found[1].where.endswith("q.jsonl:3")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({k: v for k, v in GOOD.items() if k != "gold"}, '"gold" is missing; the line has choices, context'),
        ({**GOOD, "gold": 2}, '"gold" is 2, not a whole number in 0..1'),
        ({**GOOD, "gold": True}, '"gold" is True'),
        ({**GOOD, "choices": ["only"]}, '"choices" must be a list of at least 2 strings'),
        ({**GOOD, "choices": ["x", ""]}, "choice 1 is empty"),
        ({**GOOD, "context": 3}, '"context" is a int, not a string'),
        ("[1]", "holds a list, not an object"),
        ("{oops", "not JSON"),
    ],
)
def test_a_bad_question_names_line_and_fault(tmp_path, row, says):
    path = jsonl(tmp_path / "q.jsonl", GOOD, row)
    with pytest.raises(DataError) as caught:
        read_choices(path)
    assert says in caught.value.message
    assert caught.value.where == f"{path}:2"
    assert '"choices"' in caught.value.hint


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"context": "\xe4"}')
    for path, says in (
        (tmp_path / "none.jsonl", "does not exist"),
        (tmp_path, "is a folder"),
        (jsonl(tmp_path / "empty.jsonl", ""), "holds no questions"),
        (tmp_path / "latin.jsonl", "not UTF-8: byte 13"),
    ):
        with pytest.raises(DataError, match=says):
            read_choices(path)


def test_long_questions_need_an_answer(tmp_path):
    assert read_long(jsonl(tmp_path / "l.jsonl", LONG))[0].answers == ("x",)
    with pytest.raises(DataError, match='"answers" must be a list of at least 1'):
        read_long(jsonl(tmp_path / "l.jsonl", {**LONG, "answers": []}))


def test_a_folder_of_books_is_one_document_a_file_sorted(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name * 100)
    (tmp_path / "notes.md").write_text("no book")
    assert [d.name for d in read_books(tmp_path)] == ["a.txt", "b.txt"]
    documents, label = read_documents(TextSource(path=str(tmp_path)))
    assert [d.text[0] for d in documents] == ["a", "b"]
    assert label == tmp_path.name
    (tmp_path / "c.txt").write_text("short")
    with pytest.raises(DataError, match=r"c\.txt"):
        read_books(tmp_path)


def test_a_folder_without_books_says_so(tmp_path):
    with pytest.raises(DataError, match=r"no \.txt"):
        read_books(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_books(tmp_path / "none")
