import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import { IModelRow, modelRows } from '../src/models/load';
import { deploymentOf, ownershipOf } from '../src/models/ownership';
import { load, served } from './samples';

const trans = nullTranslator.load('');
const NOW = 1_800_000_000_000; // milliseconds
const mine = {
  name: 'alice.my_tagger',
  version: '3',
  owner: 'alice',
  mine: true,
  deployed: { size: 12_345_678, time: 1_799_740_800, source: 'torch 2.13.0' },
  last_used: 1_800_000_000 - 200
};
const row = (values: object): IModelRow => modelRows([served(values)], [])[0];
const words = (values: object) =>
  ownershipOf(row({ ...mine, ...values }), NOW, trans).join(' · ');

test("this user's models are first, busy or not, with their version", () => {
  const rows = modelRows(
    [served({ name: 'busy' }), served({ name: 'idle' }), served(mine)],
    [load({ name: 'busy', inferences_per_second: 30 })]
  );
  expect(rows.map(each => each.name)).toEqual([
    'alice.my_tagger',
    'busy',
    'idle'
  ]);
  expect(rows.map(each => each.version)).toEqual(['3', null, null]);
});

test('my model has size and last use; an unknown one is not invented', () => {
  expect(words({})).toBe('yours · 12 MB · used 3 min ago');
  expect(words({ last_used: NOW / 1000 - 5 })).toContain('used just now');
  expect(words({ last_used: NOW / 1000 + 5 })).toContain('used just now');
  expect(words({ last_used: 0 })).toContain('not used since it was loaded');
  expect(words({ deployed: null, last_used: null })).toBe(
    'yours · last use unknown'
  );
  expect(words({ ready: false, state: 'UNAVAILABLE', deployed: null })).toBe(
    'yours'
  );
});

test("others' models have their owner, the facility's have none", () => {
  expect(words({ mine: false, owner: 'bob' })).toBe('by bob');
  expect(ownershipOf(row({ last_used: 0 }), NOW, trans)).toEqual([]);
  expect(ownershipOf(modelRows([], [load()])[0], NOW, trans)).toEqual([]);
});

test('the tooltip says when and from what it was deployed', () => {
  expect(deploymentOf(row(mine), NOW, trans)).toBe(
    'deployed 3 d ago, made from torch 2.13.0'
  );
  const deployed = { size: null, time: null, source: '' };
  expect(deploymentOf(row({ ...mine, deployed }), NOW, trans)).toBe('');
  expect(deploymentOf(row({}), NOW, trans)).toBe('');
});
