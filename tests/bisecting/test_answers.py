"""What a search found is written beside being told."""

from pathlib import Path

from test_searching import FakeRounds, path, search

from perfsuite.bisecting.answers import write_answers


def test_the_answer_is_written_with_its_picture_and_replaced(tmp_path: Path) -> None:
    rounds = FakeRounds({"step_s": path(16, (5, 0.2))})
    finding = search(rounds)
    for _ in range(2):
        picture, text, figures = write_answers([finding], rounds.row, tmp_path)
    assert b"<svg" in picture.read_bytes()
    assert b"times the good end" in picture.read_bytes()
    assert "at commit 5" in text.read_text("utf-8")
    assert picture.name in text.read_text("utf-8")
    assert b'"changes"' in figures.read_bytes()
