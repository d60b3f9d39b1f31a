// A round of the published npm client, unmodified: node chunkr_round.mjs FOLDER URL KEY [WORKER_KEY].
// FOLDER is where the client is installed. With a worker's key no worker is there, and what one would report is sent
// from here; without it a worker is at work beside, and a document is sent and waited for.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [folder, url, key, workerKey] = process.argv.slice(2);
const Chunkr = createRequire(`${folder}/`)('chunkr-ai');

const FILE = 'https://files.example.test/in.pdf';
const CHUNK = { chunk_id: 'c1', chunk_length: 2, segments: [] };
const MADE = { chunks: [CHUNK], file_name: 'in.pdf', page_count: 1, pdf_url: 'https://files.example.test/out.pdf' };

async function report(task, ...events) {
  for (const event of events) {
    const answer = await fetch(`${url}/ledger/v1/tasks/${task.task_id}/events`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${workerKey}` },
      body: JSON.stringify(event),
    });
    assert.equal(answer.status, 200, await answer.text());
  }
}

const refused = (asked, kind, message) => assert.rejects(asked, (error) => {
  assert.ok(error instanceof kind, error);
  assert.equal(error.message, message);
  return true;
});

async function all(pages) {
  const found = [];
  for await (const task of pages) found.push(task.task_id);
  return found;
}

async function cancelAndDelete(client, task) {
  assert.equal(await client.tasks.cancel(task.task_id), 'Task cancelled');
  await client.tasks.delete(task.task_id);
}

async function createPollAndCancel(client) {
  assert.equal(await client.health.check(), 'OK - Version 1.0.0');
  const task = await client.tasks.parse.create({ file: FILE, expires_in: 3600, ocr_strategy: 'Auto' });
  assert.deepEqual([task.status, task.message, task.completed], ['Starting', 'Task queued', false]);
  assert.equal(task.configuration.ocr_strategy, 'Auto');
  assert.deepEqual([task.file_info.name, task.file_info.mime_type], ['in.pdf', 'application/pdf']);
  assert.deepEqual(await client.tasks.get(task.task_id), task);
  assert.deepEqual(await client.tasks.parse.get(task.task_id, { include_chunks: false }), task);
  await refused(client.tasks.delete(task.task_id), Chunkr.BadRequestError,
    '400 Task cannot be deleted: status is Starting');

  assert.equal(await client.tasks.cancel(task.task_id), 'Task cancelled');
  const cancelled = await client.tasks.get(task.task_id);
  assert.deepEqual([cancelled.status, cancelled.message, cancelled.completed], ['Cancelled', 'Task cancelled', true]);
  await refused(client.tasks.cancel(task.task_id), Chunkr.BadRequestError,
    '400 Task cannot be cancelled: status is Cancelled');

  await client.tasks.delete(task.task_id);
  for (const asked of [client.tasks.get, client.tasks.cancel, client.tasks.delete]) {
    await refused(asked.call(client.tasks, task.task_id), Chunkr.NotFoundError, '404 Task not found');
  }
}

async function listInPages(client) {
  const made = [];
  for (let count = 0; count < 5; count++) made.push(await client.tasks.parse.create({ file: FILE }));
  const ids = made.map((task) => task.task_id);
  await client.tasks.cancel(ids[2]);
  const newest = [...ids].reverse();

  assert.deepEqual(await all(client.tasks.list({ limit: 2 })), newest);
  assert.deepEqual(await all(client.tasks.list({ limit: 1, sort: 'asc' })), ids);
  assert.deepEqual(await all(client.tasks.list({ limit: 5 })), newest);
  assert.deepEqual(await all(client.tasks.list({ statuses: ['Cancelled'] })), [ids[2]]);
  assert.deepEqual(await all(client.tasks.list({ statuses: ['Starting', 'Cancelled'], limit: 2 })), newest);
  assert.deepEqual(await all(client.tasks.list({ task_types: ['Extract'] })), []);
  assert.deepEqual(await all(client.tasks.list({ task_types: ['Parse', 'Extract'] })), newest);
  assert.deepEqual(await all(client.tasks.list({ end: '2020-01-01T00:00:00Z' })), []);
  assert.deepEqual(await all(client.tasks.list({ start: made[0].created_at, limit: 3 })), newest);

  const first = await client.tasks.list({ limit: 3 });
  assert.deepEqual([first.tasks.length, first.has_more, first.hasNextPage()], [3, true, true]);
  const second = await first.getNextPage();
  assert.deepEqual([second.tasks.length, second.has_more, second.next_cursor], [2, false, null]);

  await client.tasks.delete(ids.splice(2, 1)[0]);
  for (const id of ids) await cancelAndDelete(client, { task_id: id });
  assert.deepEqual(await all(client.tasks.list()), []);
}

// The client repeats what failed with the same Idempotency-Key: whatever became of the first answer, one task is made.
async function retry(client) {
  const failures = [
    () => { throw new TypeError('the connection broke'); },
    () => new Response('Service is busy', { status: 503, headers: { 'retry-after-ms': '1' } }),
  ];
  const keys = new Set();
  const losing = client.withOptions({
    fetch: async (...asked) => {
      const answer = await fetch(...asked);
      keys.add(new Headers(asked[1].headers).get('idempotency-key'));
      const failure = failures.shift();
      return failure ? failure() : answer;
    },
  });
  const task = await losing.tasks.parse.create({ file: FILE });
  assert.equal(failures.length, 0);
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^stainless-node-retry-/);
  assert.deepEqual(await all(client.tasks.list()), [task.task_id]);

  // Another body under a key that is taken is a conflict, which it does not repeat.
  let asked = 0;
  const counting = client.withOptions({ fetch: (...call) => { asked += 1; return fetch(...call); } });
  const again = counting.tasks.parse.create({ file: FILE, expires_in: 1 }, { idempotencyKey: [...keys][0] });
  await refused(again, Chunkr.ConflictError, '409 Idempotency key was used for another request');
  assert.equal(asked, 1);
  await cancelAndDelete(client, task);
}

async function sendAFile(client) {
  const content = Buffer.from('%PDF-1.7 a document');
  const dataUrl = `data:application/pdf;base64,${content.toString('base64')}`;
  const form = new FormData();
  form.append('file', new File([content], 'mine.pdf', { type: 'application/pdf' }));
  form.append('segment_processing', JSON.stringify({ Table: { format: 'Html' } }));
  const made = [
    await client.tasks.parse.create({ file: dataUrl, file_name: 'mine.pdf' }),
    await client.post('/task', { body: form }),
  ];
  assert.deepEqual(made[1].configuration.segment_processing, { Table: { format: 'Html' } });
  for (const task of made) {
    assert.deepEqual([task.file_info.name, task.file_info.url], ['mine.pdf', null]);
    const shown = await client.tasks.get(task.task_id, { base64_urls: true });
    assert.equal(shown.file_info.url, dataUrl);
    await cancelAndDelete(client, task);
  }
  await refused(client.tasks.parse.create({ file: '//4=' }), Chunkr.BadRequestError, '400 Unsupported file type');
  await refused(client.tasks.parse.create({ file: 'no base64' }), Chunkr.BadRequestError, '400 Invalid base64 data');
}

async function beSomebodyElse(client) {
  const nobody = client.withOptions({ apiKey: `${key}x` });
  await refused(nobody.tasks.list(), Chunkr.AuthenticationError, '401 Invalid or inactive API key');
}

async function parse(client) {
  const task = await client.tasks.parse.create({ file: FILE, expires_in: 3600 });
  await report(task, { type: 'started' }, { type: 'progressed', percent: 40, message: 'Cropping segments' });
  const running = await client.tasks.get(task.task_id);
  assert.deepEqual([running.status, running.message, running.output], ['Processing', 'Cropping segments', null]);
  await refused(client.tasks.cancel(task.task_id), Chunkr.BadRequestError,
    '400 Task cannot be cancelled: status is Processing');

  await report(task, { type: 'completed', output: MADE });
  const done = await client.tasks.parse.get(task.task_id);
  assert.deepEqual([done.status, done.completed, done.output], ['Succeeded', true, MADE]);
  assert.equal(done.file_info.page_count, 1);
  assert.equal(Date.parse(done.expires_at) - Date.parse(done.finished_at), 3_600_000);
  const bare = { ...MADE, chunks: [] };
  assert.deepEqual((await client.tasks.get(task.task_id, { include_chunks: false })).output, bare);
  const listed = async (query) => (await client.tasks.list(query)).tasks.map((one) => one.output);
  assert.deepEqual(await listed({ statuses: ['Succeeded'] }), [bare]);
  assert.deepEqual(await listed({ include_chunks: true, base64_urls: true }), [MADE]);

  const broken = await client.tasks.parse.create({ file: FILE });
  await report(broken, { type: 'failed', code: 'broke', message: 'It broke.' });
  const failed = await client.tasks.get(broken.task_id);
  assert.deepEqual([failed.status, failed.message, failed.output], ['Failed', 'It broke.', null]);

  for (const one of [task, broken]) await client.tasks.delete(one.task_id);
  assert.deepEqual(await all(client.tasks.list()), []);
}

async function waitForTheWorker(client) {
  let task = await client.tasks.parse.create({ file: FILE });
  const seen = new Set();
  while (!task.completed) {
    seen.add(task.status);
    await new Promise((resume) => setTimeout(resume, 50));
    task = await client.tasks.get(task.task_id);
  }
  assert.match([...seen].join(), /^Starting(,Processing)?$/); // a slow poll may miss the run, but sees no other status
  assert.deepEqual([task.status, task.message], ['Succeeded', 'Task succeeded']);
  assert.equal(task.output.chunks.length, task.file_info.page_count);
  await client.tasks.delete(task.task_id);
  await refused(client.tasks.get(task.task_id), Chunkr.NotFoundError, '404 Task not found');
}

const alone = [createPollAndCancel, listInPages, retry, sendAFile, beSomebodyElse, parse];
for (const baseURL of [`${url}/chunkr/api/v1/`, `${url}/api/v1/`, `${url}/chunkr`]) {
  const client = new Chunkr({ apiKey: key, baseURL });
  for (const step of workerKey ? alone : [waitForTheWorker]) await step(client);
}
