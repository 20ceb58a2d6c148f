import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import { gpuRows, lacksGpus } from '../src/models/gpus';
import { modelRows, shownRows } from '../src/models/load';
import { sessionOf } from '../src/models/sessions';
import { readSettings } from '../src/models/settings';
import { emptyStateOf, outageOf } from '../src/models/outage';
import { statusOf } from '../src/models/status';
import type { ISession, ISource } from '../src/api';
import { facility, failing, gpu, load, served, snapshot } from './samples';

const trans = nullTranslator.load('');

test('models are sorted by load, then by name; unmeasured ones are last', () => {
  const rows = modelRows(
    [served({ name: 'b' }), served({ name: 'a' }), served({ name: 'idle' })],
    [
      load({ name: 'idle', inferences_per_second: 0 }),
      load({ name: 'busy', inferences_per_second: 30 }),
      load({ name: 'b', inferences_per_second: 10 })
    ]
  );
  expect(rows.map(row => row.name)).toEqual(['busy', 'b', 'idle', 'a']);
  expect(rows.map(row => row.rate)).toEqual([30, 10, 0, null]);
  expect(rows.map(row => row.share)).toEqual([0.75, 0.25, 0, null]);
});

test('only a ready model has a cell; versions show if there are several', () => {
  const rows = modelRows(
    [
      served({ version: '1' }),
      served({ version: '2', ready: false, state: 'LOADING' })
    ],
    []
  );
  expect(rows.map(row => row.version).sort()).toEqual(['1', '2']);
  expect(rows.find(row => row.version === '2')).toMatchObject({
    cell: null,
    state: 'LOADING'
  });
  expect(modelRows([served()], [])[0].version).toBeNull();
  expect(modelRows([], [load()])[0].cell).toBeNull();
});

test('500 models are cut to a few, and the filter finds the rest', () => {
  const rows = modelRows(
    Array.from({ length: 500 }, (_, n) => served({ name: `Model_${n}` })),
    []
  );
  expect(shownRows(rows, '').shown).toHaveLength(20);
  expect(shownRows(rows, '').more).toBe(480);
  expect(shownRows(rows, ' model_49').shown).toHaveLength(11);
  expect(shownRows(rows, 'nothing')).toEqual({ shown: [], more: 0 });
});

test('GPUs have short labels, numbered if they would be equal', () => {
  const labels = gpuRows([
    gpu({ id: '1', profile: '2g.10gb' }),
    gpu({ id: '2', profile: '2g.10gb' }),
    gpu({ id: '3', name: 'NVIDIA H100 80GB HBM3', host: null }),
    gpu({ id: '4', name: 'Tesla T4', host: 'b' }),
    gpu({ id: '5', name: null, host: null })
  ]).map(row => row.label);
  expect(labels).toEqual([
    'A100 · 2g.10gb · ampere-01 #1',
    'A100 · 2g.10gb · ampere-01 #2',
    'H100',
    'T4 · b',
    'GPU'
  ]);
});

test('a server whose sources are silent may have a GPU', () => {
  const answering = { ...failing('http://a', 4), error: null, retry_in: null };
  const of = (...sources: ISource[]) => lacksGpus(snapshot({ sources }));
  expect(of(answering)).toBe(true);
  expect(of(answering, failing('http://b', 4))).toBe(false);
  expect(of({ ...answering, age: null })).toBe(false);
  expect(lacksGpus(snapshot({ gpus: [gpu()] }))).toBe(false);
});

const session = {
  endpoint: 'grpc://h:1',
  user: null,
  busy: true,
  label: 'particlenet',
  done: 1,
  total: 2,
  inferences_per_second: 3,
  inferences: 4,
  clusters: []
};

test('only a valid session is accepted', () => {
  expect(sessionOf({ session })).toEqual(session);
  for (const other of [null, undefined, 3, {}, { session: { busy: true } }]) {
    expect(sessionOf(other)).toBeNull();
  }
});

test('settings are clamped, and invalid ones have their default', () => {
  expect(readSettings({})).toEqual({
    interval: 1,
    window: 120,
    sections: {
      advice: true,
      gpus: true,
      models: true,
      clusters: true,
      notebooks: true,
      usage: true
    },
    statusBar: true
  });
  const odd = readSettings({
    interval: 0,
    window: 'wide',
    sections: { gpus: false },
    statusBar: false
  });
  expect(odd.interval).toBe(1);
  expect(odd.window).toBe(120);
  expect(odd.sections.gpus).toBe(false);
  expect(odd.sections.models).toBe(true);
  expect(odd.statusBar).toBe(false);
});

test('the status bar shows figures, advice, and the CPU without a GPU', () => {
  const models = [
    load({ queue_ms: 12, requests_per_second: 1, inferences_per_second: 1319 })
  ];
  const busy = (value: number) => ({
    value,
    of: 'GPU' as const,
    estimated: false
  });
  const advice = {
    kind: 'server bound' as const,
    title: 'The server.',
    text: 'Why.'
  };
  const gpu = statusOf(
    snapshot({ busy: busy(0.63), models, window: 23 }),
    advice,
    null,
    trans
  );
  expect(gpu).toMatchObject({
    text: 'GPU 63% · queue 12 ms · 1,319 jets/s',
    level: 'normal'
  });
  expect(gpu.title).toBe(
    'The server. Why.\nMean utilization of the GPUs, last 23 s'
  );
  expect(
    statusOf(snapshot({ busy: busy(0.95) }), null, null, trans)
  ).toMatchObject({
    text: 'GPU 95%',
    level: 'saturated'
  });
  const host = {
    name: 'h',
    cpu_utilization: 0.75,
    memory_used: null,
    memory_total: null
  };
  const cpu = statusOf(snapshot({ hosts: [host] }), null, null, trans);
  expect(cpu).toMatchObject({ text: 'CPU 75%', level: 'busy' });
  expect(cpu.title).toContain('No GPU');
  const silent = { hosts: [host], sources: [failing('http://a', 4)] };
  expect(statusOf(snapshot(silent), null, null, trans).title).not.toContain(
    'GPU'
  );
  expect(statusOf(null, null, null, trans).text).toBe('Triton');
  expect(
    statusOf(snapshot({ busy: busy(0.9) }), null, 'it is old', trans)
  ).toMatchObject({ text: 'Triton', title: 'it is old' });
});

test('the first retrying notebook reports the outage', () => {
  const session = (values: object) =>
    ({ endpoint: 'grpc://triton:8001', ...values }) as ISession;
  const notebook = (title: string, values: object) => ({
    id: title,
    notebook: { title, path: title, reveal: () => undefined },
    session: session(values),
    lost: null,
    stop: async () => undefined
  });
  const calm = notebook('a.ipynb', {});
  const trying = notebook('b.ipynb', {
    retrying: { reason: 'server gone', left: 87 }
  });
  expect(outageOf([calm], trans)).toBeNull();
  const text = 'b.ipynb: server gone, retrying, 87 s left';
  expect(outageOf([calm, trying], trans)).toBe(text);

  const none = facility({ state: 'no-facility', endpoint: null });
  const shown = emptyStateOf(none, null, [calm, trying], trans);
  expect(shown).toMatchObject({ title: 'Triton does not answer', text });
  expect(shown?.help).not.toContain('connect');
  expect(emptyStateOf(none, null, [calm], trans)?.text).toContain(
    'triton:8001'
  );
  expect(emptyStateOf(facility(), null, [trying], trans)).toBeNull();
});
