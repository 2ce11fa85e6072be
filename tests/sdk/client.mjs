// The official JavaScript client against the service: argument 1 is a JSON object of base URLs by name, argument 2 the folder that the client
// is installed in; see tests/it/door/sdk.rs.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const services = JSON.parse(process.argv[2]);
const { OpenAI } = createRequire(`${process.argv[3]}/`)('openai');

const ask = { model: 'auto', messages: [{ role: 'user', content: 'What jumps?' }] };
const TEXT = 'The quick brown fox jumps over the lazy dog, and then it sleeps.';
const SAID = 'The quick brown fox jumps over the lazy dog, and then it';

let requests = 0;

/** A client with its own retries on, as people have it. */
const client = (name, apiKey = 'any') =>
  new OpenAI({
    baseURL: services[name],
    apiKey,
    fetch: (...request) => {
      requests += 1;
      return fetch(...request);
    },
  });

/** The error, after one request: none of these is to be tried again. */
async function raises(kind, call) {
  requests = 0;
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor, kind, `${error.constructor.name}: ${error.message}`);
    assert.equal(requests, 1);
    return error;
  }
  return assert.fail(`no ${kind.name}`);
}

const checks = {
  async whole() {
    const sent = { ...ask, max_tokens: 50, temperature: 0.5, stop: ['END'], seed: 7, user: 'x' };
    const { data, response, request_id: id } = await client('well').chat.completions.create(sent).withResponse();
    for (const [name, value] of [['x-provider', 'alpha'], ['x-source', 'ai'], ['x-degraded', 'false'], ['x-attempts', '1']]) {
      assert.equal(response.headers.get(name), value, name);
    }
    assert.ok(id);
    assert.deepEqual([data.object, data.model], ['chat.completion', 'alpha-model']);
    const [{ message, finish_reason: finish }] = data.choices;
    assert.deepEqual([message.role, message.content, finish], ['assistant', TEXT, 'stop']);
    assert.deepEqual(data.usage, { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 });
    assert.deepEqual(data.failsoft, { provider: 'alpha', attempt: 1, source: 'ai' });
  },

  async streamed() {
    const chunks = [];
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client('well').chat.completions.create({ ...ask, ...options })) chunks.push(chunk);
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''), TEXT);
    assert.equal(chunks[0].choices[0].delta.role, 'assistant');
    assert.equal(chunks.at(-1).usage.total_tokens, 12);
    assert.equal(new Set(chunks.map((chunk) => `${chunk.id} ${chunk.created}`)).size, 1);
    // Who has seen enough leaves.
    for await (const chunk of await client('well').chat.completions.create({ ...ask, stream: true })) {
      assert.ok(chunk.choices);
      break;
    }
  },

  async helper(name = 'well') {
    const stream = client(name).chat.completions.stream(ask);
    let heard = '';
    stream.on('content', (delta) => { heard += delta; });
    assert.equal(await stream.finalContent(), TEXT);
    assert.equal(heard, TEXT);
    const final = await stream.finalChatCompletion();
    assert.deepEqual([final.choices[0].message.role, final.choices[0].finish_reason], ['assistant', 'stop']);
    assert.ok(await stream.totalUsage());
  },

  async concurrent() {
    const one = async () => {
      const stream = client('well').chat.completions.stream(ask);
      return stream.finalContent();
    };
    assert.deepEqual(await Promise.all(Array.from({ length: 10 }, one)), Array(10).fill(TEXT));
  },

  async models() {
    const names = [];
    for await (const model of client('well').models.list()) names.push(model.id);
    assert.deepEqual(names, ['auto', 'alpha', 'alpha-model']);
    assert.equal((await client('well').models.retrieve('alpha')).owned_by, 'failsoft');
    const error = await raises(OpenAI.NotFoundError, () => client('well').models.retrieve('gpt-9'));
    assert.equal(error.code, 'model_not_found');
  },

  async mistakes() {
    const create = (more) => client('well').chat.completions.create({ ...ask, ...more });
    const unknown = await raises(OpenAI.NotFoundError, () => create({ model: 'gpt-9' }));
    assert.deepEqual([unknown.code, unknown.param, unknown.type], ['model_not_found', 'model', 'invalid_request_error']);
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
    for (const [name, value] of Object.entries({ tools, n: 2, response_format: { type: 'json_object' } })) {
      const error = await raises(OpenAI.BadRequestError, () => create({ [name]: value }));
      assert.deepEqual([error.param, error.code], [name, 'unsupported_parameter']);
    }
    const big = [{ role: 'user', content: 'x'.repeat(3_000_000) }];
    assert.equal((await raises(OpenAI.APIError, () => create({ messages: big }))).status, 413);
    const right = await client('closed', 'right').chat.completions.create(ask);
    assert.equal(right.choices[0].message.content, TEXT);
    const wrong = await raises(OpenAI.AuthenticationError, () => client('closed', 'wrong').chat.completions.create(ask));
    assert.equal(wrong.code, 'invalid_api_key');
  },

  async refused() {
    for (const stream of [false, true]) {
      const refused = await raises(OpenAI.BadRequestError, () => client('refuses').chat.completions.create({ ...ask, stream }));
      assert.match(refused.message, /temperature must be nice/);
      assert.ok(refused.requestID);
      const long = await raises(OpenAI.BadRequestError, () => client('narrow').chat.completions.create({ ...ask, stream }));
      assert.equal(long.code, 'context_length_exceeded');
    }
  },

  async down() {
    const { data, response } = await client('down').chat.completions.create(ask).withResponse();
    assert.deepEqual([response.headers.get('x-degraded'), response.headers.get('x-provider')], ['true', 'none']);
    assert.equal(data.choices[0].message.content, 'Later, please.');
    assert.equal(await client('down').chat.completions.stream(ask).finalContent(), 'Later, please.');
    for (const stream of [false, true]) {
      const headers = { 'X-Degraded-Answers': 'off' };
      const call = () => client('down').chat.completions.create({ ...ask, stream }, { headers });
      const error = await raises(OpenAI.InternalServerError, call);
      assert.deepEqual([error.status, error.code], [503, 'unavailable']);
    }
  },

  async broken() {
    // The second provider goes on.
    const chunks = [];
    for await (const chunk of await client('breaks').chat.completions.create({ ...ask, stream: true })) chunks.push(chunk);
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''), TEXT);
    assert.deepEqual([chunks[0].failsoft.provider, chunks.at(-1).failsoft.provider], ['alpha', 'beta']);
    await checks.helper('breaks');
    // Nobody does: an error, not a short answer.
    let said = '';
    const error = await raises(OpenAI.APIError, async () => {
      for await (const chunk of await client('torn').chat.completions.create({ ...ask, stream: true })) {
        said += chunk.choices[0].delta.content ?? '';
      }
    });
    assert.deepEqual([said, error.code, error.type], [SAID, 'stream_interrupted', 'server_error']);
    const helped = await raises(OpenAI.APIError, () => client('torn').chat.completions.stream(ask).finalContent());
    assert.equal(helped.code, 'stream_interrupted');
  },

  async demo() {
    const command = async (fault) => {
      const url = `${services.demo.replace(/\/v1$/, '')}/demo/providers/aurora`;
      const headers = { 'content-type': 'application/json' };
      assert.equal((await fetch(url, { method: 'POST', headers, body: JSON.stringify({ fault }) })).status, 200);
    };
    for (const fault of ['none', 'cut', 'garbage', 'down']) {
      await command(fault);
      const final = await client('demo').chat.completions.stream(ask).finalChatCompletion();
      assert.equal(final.choices[0].finish_reason, 'stop');
      assert.ok(final.choices[0].message.content.length > 100);
      assert.equal(final.model, fault === 'none' ? 'aurora-sim' : 'borealis-sim');
      await command('none');
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log('ok', name);
}
