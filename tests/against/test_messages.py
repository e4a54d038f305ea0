"""Messages over a socket: whole, in order, and told when there will be none."""

import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from perfsuite.against import messages
from perfsuite.against.messages import (
    ANSWERS,
    REQUESTS,
    Answer,
    Done,
    Failed,
    Line,
    LineClosedError,
    MessageError,
    Request,
    Start,
    Started,
    Timed,
)
from perfsuite.judging.blocks import Block, State

Ends = tuple[Line[Request], Line[Answer], socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A process's end, the coordinator's, and the former's socket for what is no message."""
    one, other = socket.socketpair()
    raw = one.dup()
    process, coordinator = Line(one.detach(), REQUESTS), Line(other.detach(), ANSWERS)
    yield process, coordinator, raw
    for end in (process, coordinator, raw):
        end.close()


def test_messages_come_whole_and_in_order(ends: Ends) -> None:
    process, coordinator, _ = ends
    long = Failed(reason="ä\n" * 1_000_000)
    sending = Thread(target=process.send, args=(long,))
    sending.start()
    assert coordinator.receive() == long
    sending.join()
    for pid in (2, 3):
        process.send(Started(pid=pid))
    assert [coordinator.receive() for _ in range(2)] == [Started(pid=2), Started(pid=3)]


def test_a_block_comes_back_as_it_was(ends: Ends) -> None:
    block = Block(steps=5, wall_s=0.1, state=State(load_1min=0.5), throttled=("heat",))
    ends[0].send(Timed(block=block))
    assert ends[1].receive() == Timed(block=block)


def test_what_json_has_not_is_null(ends: Ends) -> None:
    ends[0].send(Done(record={"loss": [1.0, math.nan, math.inf]}, loaded={}))
    assert ends[1].receive() == Done(record={"loss": [1.0, None, None]}, loaded={})


@pytest.mark.parametrize(
    "sent",
    [
        b"Traceback\n",
        b'{"type": "unheard-of"}\n',
        b'{"type": "start", "key": "a", "index": 0}\n',
        b'{"type": "started", "pid": "one"}\n',
        b"\xff\n",
    ],
    ids=["no-json", "unknown", "a-request", "another-type", "no-text"],
)
def test_what_is_no_answer_is_an_error_in_one_line(ends: Ends, sent: bytes) -> None:
    ends[2].sendall(sent)
    with pytest.raises(MessageError) as caught:
        ends[1].receive(10.0)
    assert len(str(caught.value).splitlines()) == 1
    ends[0].send(Started(pid=1))
    assert ends[1].receive() == Started(pid=1)


def test_nothing_in_time_is_a_timeout_and_loses_nothing(ends: Ends) -> None:
    ends[2].sendall(b'{"type": "started",')
    with pytest.raises(TimeoutError):
        ends[1].receive(0.01)
    ends[2].sendall(b'"pid": 1}\n')
    assert ends[1].receive() == Started(pid=1)


def test_the_end_of_the_other_end_is_told(ends: Ends) -> None:
    process, coordinator, raw = ends
    process.send(Started(pid=1))
    process.close()
    raw.close()
    assert coordinator.receive() == Started(pid=1)
    with pytest.raises(LineClosedError):
        coordinator.receive()
    with pytest.raises(LineClosedError):
        coordinator.send(Start(key="", index=0))


def test_an_open_file_is_shared(ends: Ends, tmp_path: Path) -> None:
    request = Start(key="a", index=1)
    with (tmp_path / "file").open("wb") as file:
        ends[1].send(request, share=file.fileno())
    assert ends[0].receive() == request
    shared = ends[0].shared()
    os.write(shared, b"written")
    os.close(shared)
    assert (tmp_path / "file").read_bytes() == b"written"


def test_the_first_message_is_what_the_bootstrap_reads_as_plain_json() -> None:
    setup = messages.Setup(
        side="before",
        top="/tree",
        checkout=None,
        suite="benchmarks",
        suite_folder="/tree/benchmarks",
        working_folder_first=True,
        perfsuite=None,
        arguments=["-v"],
        ranks=2,
    )
    assert json.loads(msgspec.json.encode(setup)) == {
        "type": "setup",
        "protocol": messages.PROTOCOL,
        "side": "before",
        "top": "/tree",
        "checkout": None,
        "suite": "benchmarks",
        "suite_folder": "/tree/benchmarks",
        "working_folder_first": True,
        "perfsuite": None,
        "arguments": ["-v"],
        "ranks": 2,
    }
