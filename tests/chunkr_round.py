"""A round of the published client, unmodified: ``python -m tests.chunkr_round URL KEY [WORKER_KEY]``.

With a worker's key the round reports as the worker itself; without one the demo worker is at work beside it.

A program of its own, since the client's every call patches the event loop that it finds (``nest_asyncio``).
"""

import asyncio
import sys
from importlib import import_module
from typing import Any

# Neither has types to check by: they are taken as they come.
chunkr_ai: Any = import_module("chunkr_ai")
models: Any = import_module("chunkr_ai.models")
httpx: Any = import_module("httpx")

FILE = "https://files.example.test/in.pdf"
CHUNK = {"chunk_id": "c1", "chunk_length": 2, "segments": []}
MADE = {"chunks": [CHUNK], "file_name": "in.pdf", "page_count": 1, "pdf_url": "https://files.example.test/out.pdf"}


class Worker:
    """Reports over the native API."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = url, {"Authorization": f"Bearer {key}"}

    async def report(self, task: str, *events: dict[str, Any]) -> None:
        async with httpx.AsyncClient() as client:
            for event in events:
                path = f"{self._url}/ledger/v1/tasks/{task}/events"
                (await client.post(path, json=event, headers=self._headers)).raise_for_status()


STARTED, DONE = {"type": "started"}, {"type": "completed", "output": MADE}
FAILED = {"type": "failed", "code": "broke", "message": "It broke."}


async def refused(asked: Any, status: int, text: str) -> None:  # noqa: ANN401 - what the client returns
    told: object
    try:
        await asked
        told = "taken"
    except httpx.HTTPStatusError as error:
        told = (error.response.status_code, error.response.text)
    assert told == (status, text), told


async def parse_and_update(client: Any, worker: Worker) -> None:  # noqa: ANN401 - as above
    """Create, poll, update, cancel the update, update again, see one fail, delete."""
    table = models.SegmentProcessing(Table=models.GenerationConfig(description=True))
    task = await client.create_task(FILE, models.Configuration(expires_in=3600, segment_processing=table))
    assert (task.status, task.message) == ("Starting", "Task queued")
    assert task.configuration.input_file_url == FILE
    assert task.configuration.chunk_processing.target_length == 512
    await worker.report(task.task_id, STARTED)
    assert (await client.get_task(task.task_id)).status == "Processing"
    await refused(client.cancel_task(task.task_id), 400, "Task cannot be cancelled: status is Processing")
    await refused(client.delete_task(task.task_id), 400, "Task cannot be deleted: status is Processing")
    await worker.report(task.task_id, DONE)
    await task.poll()
    assert (task.status, task.output.chunks[0].chunk_id) == ("Succeeded", "c1")
    before = await client.get_task(task.task_id)

    finer = models.Configuration(high_resolution=True)
    updating = await client.update_task(task.task_id, finer)
    assert (updating.status, updating.message) == ("Starting", "Task queued for update")
    assert updating.configuration.high_resolution
    reverted = await (await updating.cancel())
    assert reverted.status == "Succeeded"
    assert (await client.get_task(task.task_id)).model_dump() == before.model_dump()
    await refused(task.cancel(), 400, "Task cannot be cancelled: status is Succeeded")

    for ending, high in ((FAILED, False), (DONE, True)):
        again = await client.update_task(task.task_id, finer)
        await worker.report(task.task_id, STARTED, ending)
        await again.poll()
        assert (again.status, again.configuration.high_resolution) == ("Succeeded", high)
    await refused(client.update_task(task.task_id, finer), 400, "Task cannot be updated: configuration is unchanged")
    await task.delete()
    await refused(client.get_task(task.task_id), 404, "Task not found")


async def send_and_cancel(client: Any) -> None:  # noqa: ANN401 - as above
    """A file is sent along, cancelled, and deleted."""
    task = await client.create_task(b"%PDF-1.7 a document", filename="mine.pdf")
    assert await (await task.cancel()) is task
    assert (task.status, task.message) == ("Cancelled", "Task cancelled")
    await refused(client.cancel_task(task.task_id), 400, "Task cannot be cancelled: status is Cancelled")
    await client.delete_task(task.task_id)
    await refused(client.delete_task(task.task_id), 404, "Task not found")
    await refused(client.create_task(b"\xff\xfe no document"), 400, "Unsupported file type")
    # What could be base64 if one were lenient, the client takes for it.
    await refused(client.create_task(b"just some text."), 400, "Invalid base64 data")


async def wait_for_the_demo_worker(client: Any) -> None:  # noqa: ANN401 - as above
    """Create, poll, update, poll, update and cancel that, delete: all that the demo worker makes can be read."""
    task = await client.create_task(FILE)
    await task.poll()
    assert task.status == "Succeeded"
    assert len(task.output.chunks) == task.output.page_count
    assert task.output.chunks[0].segments[0].bbox.width > 0

    updated = await client.update_task(task.task_id, models.Configuration(high_resolution=True))
    await updated.poll()
    assert (updated.status, updated.configuration.high_resolution) == ("Succeeded", True)
    again = await client.update_task(task.task_id, models.Configuration(high_resolution=False))
    reverted = await (await again.cancel())
    assert (reverted.status, reverted.output) == ("Succeeded", updated.output)
    await reverted.delete()
    await refused(client.get_task(task.task_id), 404, "Task not found")


async def main(url: str, key: str, worker_key: str | None = None) -> None:
    for base in (f"{url}/chunkr", url):
        client = chunkr_ai.Chunkr(url=base, api_key=key)
        if worker_key is None:
            await wait_for_the_demo_worker(client)
        else:
            await parse_and_update(client, Worker(url, worker_key))
        await send_and_cancel(client)
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
