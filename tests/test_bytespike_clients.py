"""ByteSpike's documented examples, run by the programs that they are written for, against the real server.

Source: ByteSpike docs, "Cancel task" (docs.bytespike.ai), whose curl lines stand here as they are; the other requests
have its form and the fields of the tasks API. Where a program is not there its rows are skipped.
"""

from pathlib import Path

import pytest

from ledger.keys import Role
from tests.processes import Server, keys_in
from tests.programs import Program, with_every_program

DOCUMENTED_BASE, DOCUMENTED_KEY = "https://llm.bytespike.ai", "$BYTESPIKE_API_KEY"

CURL = """
set -eu
submitted=$(curl -sS -X POST https://llm.bytespike.ai/v1/tasks/submit \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY" \
  -H "content-type: application/json" \
  -d '{"model": "wan-2.6", "params": {"prompt": "a harbour"}, "out_task_id": "my-render-2026-05-25-001"}')
printf '%s\\n' "$submitted"
task_id=$(printf '%s' "$submitted" | sed 's/.*"task_id":"\\([^"]*\\)".*/\\1/')
curl -sS -X POST https://llm.bytespike.ai/v1/tasks/query \
  -H "x-api-key: $BYTESPIKE_API_KEY" \
  -H "content-type: application/json" \
  -d "{\\"task_id\\": \\"$task_id\\"}"
printf '\\n'
curl -sS -X POST https://llm.bytespike.ai/v1/tasks/cancel/$task_id \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY"
printf '\\n'
curl -sS -X POST https://llm.bytespike.ai/v1/tasks/cancel \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY" \
  -H "content-type: application/json" \
  -d '{"out_task_id": "my-render-2026-05-25-001"}'
printf '\\n'
curl -sS https://llm.bytespike.ai/v1/usage \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY"
"""
REQUESTS = """
import json
import requests

base, headers = "https://llm.bytespike.ai", {"Authorization": "Bearer $BYTESPIKE_API_KEY"}
out_task_id = "my-render-2026-05-25-001"


def post(path, **options):
    response = requests.post(f"{base}/v1/tasks/{path}", **{"headers": headers, **options})
    response.raise_for_status()
    print(json.dumps(response.json()))
    return response.json()


task_id = post(
    "submit", json={"model": "wan-2.6", "params": {"prompt": "a harbour"}, "out_task_id": out_task_id}
)["task_id"]
post("query", json={"task_id": task_id}, headers={"x-api-key": "$BYTESPIKE_API_KEY"})
post(f"cancel/{task_id}")
post("cancel", json={"out_task_id": out_task_id})
print(json.dumps(requests.get(f"{base}/v1/usage", headers=headers).json()))
"""
FETCH = """
(async () => {
  const base = 'https://llm.bytespike.ai';
  const headers = { Authorization: 'Bearer $BYTESPIKE_API_KEY' };
  const outTaskId = 'my-render-2026-05-25-001';
  const post = async (path, body, shown = headers) => {
    const response = await fetch(`${base}/v1/tasks/${path}`, {
      method: 'POST',
      headers: { ...shown, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    console.log(JSON.stringify(answer));
    return answer;
  };
  const order = { model: 'wan-2.6', params: { prompt: 'a harbour' }, out_task_id: outTaskId };
  const { task_id: taskId } = await post('submit', order);
  await post('query', { task_id: taskId }, { 'x-api-key': '$BYTESPIKE_API_KEY' });
  await post(`cancel/${taskId}`);
  await post('cancel', { out_task_id: outTaskId });
  console.log(JSON.stringify(await (await fetch(`${base}/v1/usage`, { headers })).json()));
})();
"""


@with_every_program(CURL, REQUESTS, FETCH)
@pytest.mark.parametrize("prefix", ["", "/bytespike"], ids=["root", "prefix"])
async def test_the_documented_clients_submit_query_and_cancel(tmp_path: Path, program: Program, prefix: str) -> None:
    path = tmp_path / "ledger.db"
    [key] = await keys_in(path, ("bytespike", Role.CLIENT))
    async with Server(path) as server:
        await server.start()
        place = {DOCUMENTED_BASE: f"http://127.0.0.1:{server.port}{prefix}", DOCUMENTED_KEY: key}
        submitted, queried, by_path, by_body, used = await program.run(place)
        assert await server.stop() == 0
    assert submitted == queried
    assert queried == {
        "task_id": submitted["task_id"],
        "out_task_id": "my-render-2026-05-25-001",
        "status": "pending",
        "estimated_credits": 1.5,
        "estimated_seconds": 35,
    }
    assert by_path == by_body == queried | {"status": "cancelled"}
    assert used == {"object": "list", "data": [], "next_cursor": None, "has_more": False}
