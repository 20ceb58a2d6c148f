import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import type { IFacility, ISession } from '../src/api';
import { addressProblem, isAddress } from '../src/models/address';
import { markOf } from '../src/models/marks';
import { facility, session } from './samples';

const trans = nullTranslator.load('');
const shown = facility({
  endpoint: {
    url: 'grpc://127.0.0.1:8001',
    urls: ['grpc://127.0.0.1:8001', 'grpc://127.0.0.1:9001'],
    source: 'configuration'
  }
});

const mark = (values: Partial<ISession>, of: IFacility | null = shown) =>
  markOf({ session: session(values), lost: null }, of, trans);

test('a notebook on the shown server has no warning', () => {
  for (const endpoint of [
    'grpc://127.0.0.1:8001',
    'grpc://127.0.0.1:9001',
    'grpc://localhost:8001',
    null
  ]) {
    expect(mark({ endpoint })).toBeNull();
  }
  expect(mark({ endpoint: 'grpc://other:8001' }, null)).toBeNull();
  expect(markOf({ session: null, lost: null }, shown, trans)).toBeNull();
});

test('another server is named, even if the panel has none', () => {
  const endpoint = 'grpc://other:8001';
  expect(mark({ endpoint })).toBe('connected to grpc://other:8001');
  const none = facility({ state: 'no-facility', endpoint: null });
  expect(mark({ endpoint }, none)).toBe('connected to grpc://other:8001');
});

test('a server that does not answer is named', () => {
  const endpoint = 'grpc://127.0.0.1:8001';
  const retrying = { reason: 'server gone', left: 87.4 };
  expect(mark({ endpoint, retrying })).toBe('server gone, retrying, 87 s left');
  const attempt = {
    source: 'configuration',
    value: endpoint,
    outcome: 'refused',
    seconds: 0.1,
    chosen: false
  };
  const away = facility({
    state: 'unreachable',
    endpoint: null,
    attempts: [attempt]
  });
  expect(mark({ endpoint }, away)).toBe(
    'grpc://127.0.0.1:8001 does not answer'
  );
  expect(mark({ endpoint: 'grpc://other:8001' }, away)).toBe(
    'connected to grpc://other:8001'
  );
});

test('a restarting or dead kernel has a warning', () => {
  const of = (lost: 'restarting' | 'died') =>
    markOf({ session: null, lost }, shown, trans);
  expect(of('restarting')).toBe('kernel is restarting');
  expect(of('died')).toBe('kernel died: connect again');
});

test.each([
  'grpcs://triton.fnal.gov:443',
  'grpc://127.0.0.1:8001',
  'grpc://[::1]:8001',
  'triton+grpc://host:8001/particlenet/1',
  'https://triton.fnal.gov',
  'triton.fnal.gov',
  'localhost:8001'
])('%s is an address', address => {
  expect(isAddress(address)).toBe(true);
  expect(addressProblem(address, trans)).toBeNull();
});

test.each([
  'ftp://host',
  'grpc://',
  'grpc://host:0',
  'grpc://host:99999',
  'grpc://user:secret@host:8001',
  'two words',
  'grpc://host:8001\nimport os',
  '--token-file=/etc/passwd',
  '{url}',
  '$HOME',
  'h'.repeat(400)
])('%j is none, and does not become code', address => {
  expect(isAddress(address)).toBe(false);
  expect(addressProblem(address, trans)).toBe(
    'This is not a server address. Expected grpcs://host:443 (with TLS) or grpc://host:8001.'
  );
});

test('an empty field shows the expected format', () => {
  expect(addressProblem('', trans)).toBe(
    'Expected grpcs://host:443 (with TLS) or grpc://host:8001.'
  );
});
