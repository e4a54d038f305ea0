"""Messages over a socket: whole, in order, and told when there will be none."""

import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from perfsuite.against.messages import Line, LineClosedError


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    lines = [Line(end.detach()) for end in socket.socketpair()]
    yield lines[0], lines[1]
    for line in lines:
        line.close()


def test_messages_come_whole_and_in_order(ends: tuple[Line, Line]) -> None:
    one, other = ends
    long = "ä\n" * 1_000_000
    sending = Thread(target=one.send, args=("first",), kwargs={"text": long})
    sending.start()
    assert other.receive() == {"kind": "first", "text": long}
    sending.join()
    one.send("second", n=2)
    one.send("third", n=3)
    assert other.receive() == {"kind": "second", "n": 2}
    assert other.receive() == {"kind": "third", "n": 3}


def test_what_json_has_not_is_null(ends: tuple[Line, Line]) -> None:
    ends[0].send("loss", values=[1.0, math.nan, math.inf])
    assert ends[1].receive()["values"] == [1.0, None, None]


def test_nothing_in_time_is_a_timeout_and_loses_nothing(ends: tuple[Line, Line]) -> None:
    one, other = ends
    with pytest.raises(TimeoutError):
        other.receive(0.01)
    one.send("late")
    assert other.receive(0.01) == {"kind": "late"}


def test_the_end_of_the_other_end_is_told(ends: tuple[Line, Line]) -> None:
    one, other = ends
    one.send("last")
    one.close()
    assert other.receive() == {"kind": "last"}
    with pytest.raises(LineClosedError):
        other.receive()
    with pytest.raises(LineClosedError):
        other.send("anyone there")


def test_an_open_file_is_shared(ends: tuple[Line, Line], tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        ends[0].send("start", share=file.fileno())
    assert ends[1].receive(shares=True) == {"kind": "start"}
    shared = ends[1].shared()
    os.write(shared, b"written")
    os.close(shared)
    assert (tmp_path / "file").read_bytes() == b"written"
