import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import { ApiError, type FacilityState } from '../src/api';
import { emptyState, foundByNotebooks } from '../src/models/empty';
import { freshness } from '../src/models/freshness';
import { facility, failing, session } from './samples';

const trans = nullTranslator.load('');
const attempt = {
  source: 'argument',
  value: '',
  outcome: 'not given',
  seconds: null,
  chosen: false
};

test.each([
  ['no-facility', 'connect'],
  ['unreachable', 'retry'],
  ['not-authorised', 'retry'],
  ['misconfigured', 'documentation']
] as [FacilityState, string][])(
  '%s shows the reason and what helps',
  (state, help) => {
    const shown = emptyState(
      facility({
        state,
        problem: 'because of this',
        attempts: [attempt],
        documentation: 'https://docs'
      }),
      null,
      trans
    );
    expect(shown?.text).toBe('because of this');
    expect(shown?.help[0]).toBe(help);
    expect(shown?.help).toContain('attempts');
  }
);

test('each state has its own text, and no dead button', () => {
  const shown = emptyState(
    facility({
      state: 'misconfigured',
      documentation: 'javascript:alert(1)'
    }),
    null,
    trans
  );
  expect(shown?.text).not.toBe('');
  expect(shown?.help).toEqual(['retry', 'address']);
  const problem = 'Start it with `eaf-inference up`.';
  expect(
    emptyState(facility({ state: 'no-facility', problem }), null, trans)?.text
  ).toBe('Start it with "eaf-inference up".');
});

test('an HTTP error differs from a server that does not answer', () => {
  const of = (status: number) =>
    emptyState(null, new ApiError(status, 'no'), trans);
  expect(of(403)?.help).toEqual(['reload']);
  expect(of(404)?.title).toContain('server extension');
  expect(of(0)?.help).toEqual(['retry']);
  expect(of(500)?.help).toEqual(['retry']);
});

test('no state before the first answer, nor while connected', () => {
  expect(emptyState(null, null, trans)?.help).toEqual([]);
  expect(emptyState(facility(), null, trans)).toBeNull();
});

test('an empty panel mentions a notebook that found a server', () => {
  const none = facility({ state: 'no-facility', endpoint: null });
  const state = emptyState(none, null, trans);
  const of = (endpoint: string | null) =>
    foundByNotebooks(state, none, [{ session: session({ endpoint }) }], trans);
  expect(of(null)?.title).toBe('No Triton service was found');
  expect(foundByNotebooks(state, none, [{ session: null }], trans)).toBe(state);
  const shown = of('grpc://other:8001');
  expect(shown?.title).toBe('Only a notebook is connected');
  expect(shown?.text).toContain('grpc://other:8001');
  expect(shown?.help).toEqual(['address', 'retry']);
  const away = facility({ state: 'unreachable' });
  expect(foundByNotebooks(state, away, [{ session: session() }], trans)).toBe(
    state
  );
});

const known = {
  heard: 100_000,
  measured: 100_000,
  sources: [],
  streamState: { kind: 'open' as const },
  interval: 1
};

test('current numbers are fresh', () => {
  expect(freshness(101_000, known, trans)).toEqual({
    stale: false,
    age: 1,
    note: null
  });
});

test('a lost connection is stale at once, and shows the next try', () => {
  const streamState = { kind: 'waiting' as const, retryAt: 105_000 };
  const { stale, note } = freshness(101_000, { ...known, streamState }, trans);
  expect(stale).toBe(true);
  expect(note).toContain('4 s');
});

test('a silent connection is stale after some intervals', () => {
  expect(freshness(104_000, known, trans).stale).toBe(false);
  expect(freshness(106_000, known, trans).stale).toBe(true);
  expect(freshness(106_000, { ...known, interval: 10 }, trans).stale).toBe(
    false
  );
});

test('numbers are stale if every source fails, not if one of two does', () => {
  const bad = failing('http://a', 4);
  const good = { ...bad, error: null, retry_in: null };
  const of = (sources: (typeof bad | typeof good)[]) =>
    freshness(101_000, { ...known, measured: 87_000, sources }, trans);
  expect(of([bad, good]).stale).toBe(false);
  const { stale, age, note } = of([bad, { ...bad, retry_in: 9 }]);
  expect(stale).toBe(true);
  expect(age).toBe(14);
  expect(note).toBe(
    'No numbers for 14 s. http://a: connection refused. Next try in 4 s'
  );
});
