"""LemonData's documented examples, run by the programs that they are written for, against the real server.

Source: LemonData API reference, "Create video", "Get task status" and "Cancel task" (docs.lemondata.cc): the requests
in curl, Python's requests and JavaScript's fetch, strung together into one round of create, poll, cancel and poll.
Where a program is not there its rows are skipped.
"""

from pathlib import Path

import pytest

from ledger.keys import Role
from tests.processes import Server, keys_in
from tests.programs import Program, with_every_program

DOCUMENTED_BASE, DOCUMENTED_KEY = "https://api.lemondata.cc", "sk-your-api-key"

CURL = """
set -eu
created=$(curl -sS -X POST "https://api.lemondata.cc/v1/videos/generations" \
  -H "Authorization: Bearer sk-your-api-key" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "seedance-2.0",
    "prompt": "A cat walking through a garden, cinematic lighting",
    "operation": "text-to-video",
    "duration": 4,
    "aspect_ratio": "16:9"
  }')
printf '%s\\n' "$created"
poll_url=$(printf '%s' "$created" | sed 's/.*"poll_url":"\\([^"]*\\)".*/\\1/')
curl -sS "https://api.lemondata.cc$poll_url" \
  -H "Authorization: Bearer sk-your-api-key"
printf '\\n'
curl -sS -X DELETE "https://api.lemondata.cc$poll_url" \
  -H "Authorization: Bearer sk-your-api-key"
printf '\\n'
curl -sS "https://api.lemondata.cc$poll_url" \
  -H "Authorization: Bearer sk-your-api-key"
"""
REQUESTS = """
import json
import requests

base, headers = "https://api.lemondata.cc", {"Authorization": "Bearer sk-your-api-key"}
response = requests.post(
    f"{base}/v1/videos/generations",
    headers=headers,
    json={
        "model": "seedance-2.0",
        "prompt": "A cat walking through a garden, cinematic lighting",
        "operation": "text-to-video",
        "duration": 4,
        "aspect_ratio": "16:9",
    },
)
print(json.dumps(response.json()))
poll_url = response.json()["poll_url"]
print(json.dumps(requests.get(f"{base}{poll_url}", headers=headers).json()))
print(json.dumps(requests.delete(f"{base}{poll_url}", headers=headers).json()))
print(json.dumps(requests.get(f"{base}{poll_url}", headers=headers).json()))
"""
FETCH = """
(async () => {
  const base = 'https://api.lemondata.cc';
  const headers = { Authorization: 'Bearer sk-your-api-key' };
  const response = await fetch(`${base}/v1/videos/generations`, {
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json' },
    body: JSON.stringify({
      model: 'seedance-2.0',
      prompt: 'A cat walking through a garden, cinematic lighting',
      operation: 'text-to-video',
      duration: 4,
      aspect_ratio: '16:9',
    }),
  });
  const created = await response.json();
  console.log(JSON.stringify(created));
  const pollUrl = created.poll_url;
  for (const method of ['GET', 'DELETE', 'GET']) {
    const answer = await fetch(`${base}${pollUrl}`, { method, headers });
    console.log(JSON.stringify(await answer.json()));
  }
})();
"""


@with_every_program(CURL, REQUESTS, FETCH)
@pytest.mark.parametrize("prefix", ["", "/lemondata"], ids=["root", "prefix"])
async def test_the_documented_clients_create_poll_and_cancel(tmp_path: Path, program: Program, prefix: str) -> None:
    path = tmp_path / "ledger.db"
    [key] = await keys_in(path, ("lemondata", Role.CLIENT))
    async with Server(path) as server:
        await server.start()
        place = {DOCUMENTED_BASE: f"http://127.0.0.1:{server.port}{prefix}", DOCUMENTED_KEY: key}
        created, polled, cancelled, read = await program.run(place)
        assert await server.stop() == 0
    name = created["id"]
    common = {"id": name, "task_id": name, "poll_url": f"/v1/tasks/{name}"}
    told = {"model": "seedance-2.0", "created": created["created"]}
    gone = {"cancelled": True, "cancellation_status": "cancelled", "error": "Task cancelled before execution"}
    assert created == common | told | {"status": "pending"}
    assert polled == created | {"updated": polled["updated"]}
    assert cancelled == common | gone | {"status": "failed"}
    assert read == cancelled | told | {"updated": read["updated"]}
