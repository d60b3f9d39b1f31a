"""beatra's documented calls, run by the programs that they are written for, against the real server.

Source: beatra API reference, "Cancel a task (best-effort)", whose curl line has the headers and the body that stand
here; the other requests have its form and the routes and fields of the documentation (docs.stratizon.cn). Where a
program is not there its rows are skipped.
"""

from pathlib import Path

import pytest

from ledger.keys import Role
from tests.processes import Server, keys_in
from tests.programs import Program, with_every_program

DOCUMENTED_BASE, DOCUMENTED_KEY = "https://api.beatra.ai/v1", "$BEATRA_API_KEY"

CURL = """
set -eu
created=$(curl -sS -X POST "https://api.beatra.ai/v1/music/text-to-music" \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "Idempotency-Key: order-4711" \
  -H "Content-Type: application/json" \
  -d '{"model": "auto", "prompt": "dream pop", "metadata": {"order": "4711"}}')
printf '%s\\n' "$created"
task_id=$(printf '%s' "$created" | sed 's/.*"task_id":"\\([^"]*\\)".*/\\1/')
curl -sS "https://api.beatra.ai/v1/tasks/$task_id" \
  -H "Authorization: Bearer $BEATRA_API_KEY"
printf '\\n'
curl -sS "https://api.beatra.ai/v1/tasks?status=queued&limit=20&expand=all" \
  -H "Authorization: Bearer $BEATRA_API_KEY"
printf '\\n'
for attempt in first again; do
  curl -sS -X POST "https://api.beatra.ai/v1/tasks/$task_id/cancel" \
    -H "Authorization: Bearer $BEATRA_API_KEY" \
    -H "X-Request-Id: string" \
    -H "Idempotency-Key: string" \
    -H "Content-Type: application/json" \
    -d '{
      "reason": "string"
    }'
  printf '\\n'
done
"""
REQUESTS = """
import json
import requests

base, headers = "https://api.beatra.ai/v1", {"Authorization": "Bearer $BEATRA_API_KEY"}


def answered(response, status):
    assert response.status_code == status, response.text
    print(json.dumps(response.json()))
    return response.json()


created = answered(
    requests.post(
        f"{base}/music/text-to-music",
        headers={**headers, "Idempotency-Key": "order-4711"},
        json={"model": "auto", "prompt": "dream pop", "metadata": {"order": "4711"}},
    ),
    202,
)
one = f"{base}/tasks/{created['task_id']}"
answered(requests.get(one, headers=headers), 200)
answered(requests.get(f"{base}/tasks", headers=headers, params={"status": "queued", "expand": "all"}), 200)
for _ in range(2):
    asked = {**headers, "X-Request-Id": "string", "Idempotency-Key": "string"}
    response = requests.post(f"{one}/cancel", headers=asked, json={"reason": "string"})
    assert response.headers["X-Request-Id"] == "string"
    answered(response, 202)
"""
FETCH = """
(async () => {
  const base = 'https://api.beatra.ai/v1';
  const headers = { Authorization: 'Bearer $BEATRA_API_KEY' };
  const answered = async (response) => {
    const answer = await response.json();
    console.log(JSON.stringify(answer));
    return answer;
  };
  const post = (path, key, body) =>
    fetch(`${base}${path}`, {
      method: 'POST',
      headers: { ...headers, 'Idempotency-Key': key, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
  const order = { model: 'auto', prompt: 'dream pop', metadata: { order: '4711' } };
  const { links } = await answered(await post('/music/text-to-music', 'order-4711', order));
  const root = new URL(base).pathname.replace('/v1', '');
  const at = (link) => new URL(`${root}${link}`, base);
  await answered(await fetch(at(links.self), { headers }));
  await answered(await fetch(`${base}/tasks?status=queued&expand=all`, { headers }));
  const path = links.cancel.replace('/v1', '');
  for (const attempt of ['first', 'again']) {
    await answered(await post(path, 'string', { reason: 'string' }));
  }
})();
"""


@with_every_program(CURL, REQUESTS, FETCH)
@pytest.mark.parametrize("prefix", ["", "/beatra"], ids=["root", "prefix"])
async def test_the_documented_clients_create_read_list_and_cancel(
    tmp_path: Path, program: Program, prefix: str
) -> None:
    path = tmp_path / "ledger.db"
    [key] = await keys_in(path, ("beatra", Role.CLIENT))
    async with Server(path) as server:
        await server.start()
        place = {DOCUMENTED_BASE: f"http://127.0.0.1:{server.port}{prefix}/v1", DOCUMENTED_KEY: key}
        created, read, listed, cancelled, again = await program.run(place)
        assert await server.stop() == 0
    assert (created["status"], created["resolved_model"], created["metadata"]) == (
        "queued",
        "suno-5.5",
        {"order": "4711"},
    )
    assert read == created
    assert listed == {"object": "list", "data": [created], "next_cursor": None, "has_more": False}
    assert (cancelled["status"], cancelled["billing"]["refunded_credits"]) == ("canceled", "80.0000")
    assert again == cancelled
