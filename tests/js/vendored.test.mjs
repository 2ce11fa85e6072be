import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const folder = new URL('../../static/vendor/', import.meta.url);
const sha256 = (name) => createHash('sha256').update(readFileSync(new URL(name, folder))).digest('hex');

test('every vendored script has its recorded checksum', () => {
  const record = readFileSync(new URL('VENDORED.txt', folder), 'utf8');
  const scripts = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.js'));
  assert.ok(scripts.length > 20, `${scripts}`);
  for (const name of scripts) assert.ok(record.includes(sha256(name)), `${name} differs from VENDORED.txt: run static/vendor/update.sh`);
});
