"""What a table said is remembered for a few seconds, and asked for once by all who wait.

It knows a clock moved by hand. It refuses to know what is remembered.
"""

from __future__ import annotations

import asyncio

from gateway.control.memory import Memory


class Table:
    """Counts what it is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.at_once = 0
        self.most_at_once = 0

    async def ask(self, key: str) -> str | None:
        """Some keys are known."""
        self.asked.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.open.wait()
        self.at_once -= 1
        return None if key.startswith("un") else key.upper()


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_is_remembered_for_its_time_and_so_is_that_there_is_none() -> None:
    """Known and unknown keys are looked up once in three seconds."""
    table, clock = Table(), Clock()
    memory = Memory(table.ask, clock)
    for _ in range(3):
        assert [await memory.get("known"), await memory.get("unknown")] == ["KNOWN", None]
    assert table.asked == ["known", "unknown"]
    clock.now += 3.0
    assert await memory.get("known") == "KNOWN"
    assert table.asked == ["known", "unknown", "known"]


async def test_those_who_wait_for_one_answer_share_one_question() -> None:
    """However many ask for a key while it is being looked up, the table is asked once."""
    table = Table()
    table.open.clear()
    memory = Memory(table.ask, Clock())
    waiting = [asyncio.create_task(memory.get("known")) for _ in range(20)]
    await asyncio.sleep(0)
    table.open.set()
    assert await asyncio.gather(*waiting) == ["KNOWN"] * 20
    assert table.asked == ["known"]


async def test_keys_that_somebody_makes_up_take_few_questions_at_once() -> None:
    """No more than four different keys are looked up together."""
    table = Table()
    table.open.clear()
    memory = Memory(table.ask, Clock())
    waiting = [asyncio.create_task(memory.get(f"un{number}")) for number in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    table.open.set()
    await asyncio.gather(*waiting)
    assert table.most_at_once == 4


async def test_a_memory_that_is_full_is_emptied() -> None:
    """Made-up keys cannot take memory without end."""
    table = Table()
    memory = Memory(table.ask, Clock(), size_max=3)
    for number in range(10):
        await memory.get(f"un{number}")
    assert len(memory._known) <= 3


async def test_what_is_forgotten_is_asked_again() -> None:
    """By key, or by what the answer was."""
    table = Table()
    memory = Memory(table.ask, Clock())
    for key in ("a", "b", "c"):
        await memory.get(key)
    memory.forget("a")
    memory.forget_where(lambda value: value == "B")
    for key in ("a", "b", "c"):
        await memory.get(key)
    assert table.asked == ["a", "b", "c", "a", "b"]


async def test_answers_hold_while_what_they_depend_on_stands() -> None:
    """Other rules in force: everything is looked up again."""
    table, rules = Table(), [object()]
    memory = Memory(table.ask, Clock(), under=lambda: rules[0])
    await memory.get("a")
    await memory.get("a")
    rules[0] = object()
    await memory.get("a")
    assert table.asked == ["a", "a"]
