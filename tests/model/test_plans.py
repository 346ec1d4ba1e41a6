"""Plans of operations, made up by Hypothesis, each played in virtual time and compared with Airbyte's truth."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model.virtual import plans
from model.virtual.clock import play
from model.virtual.stage import keeping, staged


async def perform(steps: list[plans.Step], kind: str, folder: Path | None = None) -> None:
    plans.done["plans"] += 1
    async with staged(keeping(kind, folder)) as stage:
        await plans.Play(stage, durable=kind != "lost").perform(steps)


class TestWhateverHappens:
    """I1 to I5: the same ends, once, to whoever waits, reads or follows."""

    def test_with_a_log_that_is_kept(self, for_each_plan: Any) -> None:
        for_each_plan("kept", lambda steps: play(perform, steps, "kept"))

    def test_with_a_log_that_ends_with_its_listener(self, for_each_plan: Any) -> None:
        for_each_plan("lost", lambda steps: play(perform, steps, "lost"))

    def test_with_a_log_in_a_file(self, for_each_plan: Any) -> None:
        def play_one(steps: list[plans.Step]) -> None:
            with TemporaryDirectory(prefix="model-") as folder:
                play(perform, steps, "sqlite", Path(folder))

        for_each_plan("sqlite", play_one)
