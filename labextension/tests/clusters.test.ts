import { nullTranslator } from '@jupyterlab/translation';
import { expect, test, vi } from 'vitest';

import type { ICluster, ISession } from '../src/api';
import { ClusterChanges } from '../src/models/changes';
import { dashboardUrl, mergedClusters } from '../src/models/clusters';
import { session } from './samples';

type SessionCluster = ISession['clusters'][number];

const trans = nullTranslator.load('');
const ID = '7f3b2c1d9e8a4b5c6d7e8f9012345678';

const listed = (values: Partial<ICluster> = {}): ICluster => ({
  name: ID,
  status: 'running',
  started: 1000,
  workers: 8,
  configured: null,
  inferences_per_second: null,
  oldest_token: 60,
  dashboard: null,
  ...values
});

const reported = (values: Partial<SessionCluster> = {}): SessionCluster => ({
  name: ID,
  state: 'configured',
  workers: 8,
  configured: 7,
  inferences_per_second: 4120,
  ...values
});

const notebook = (title: string, ...clusters: SessionCluster[]) => ({
  notebook: { title, path: title, reveal: vi.fn() },
  session: session({ clusters })
});

test("a kernel's numbers for a cluster override the gateway's", () => {
  const local = reported({ name: 'Local', inferences_per_second: null });
  const merged = mergedClusters(
    [listed()],
    [
      { ...notebook('idle.ipynb'), session: null },
      notebook('a.ipynb', reported(), local),
      notebook('b.ipynb', reported())
    ]
  );
  expect(merged).toHaveLength(2);
  expect(merged[0]).toMatchObject({
    label: '7f3b2c',
    notebooks: ['a.ipynb', 'b.ipynb'],
    listed: true,
    status: 'running',
    started: 1000,
    configured: 7,
    inferences_per_second: 4120,
    oldest_token: 60
  });
  expect(merged[1]).toMatchObject({
    label: 'Local',
    notebooks: ['a.ipynb'],
    listed: false,
    started: null
  });
});

test('generated names are shortened while distinct, other names are kept', () => {
  const labels = (...names: string[]) =>
    mergedClusters(
      names.map(name => listed({ name })),
      []
    ).map(each => each.label);
  const other = ID.replace('1d9e', '1dff');
  expect(labels(ID)).toEqual(['7f3b2c']);
  expect(labels(ID, other)).toEqual(['7f3b2c1d9', '7f3b2c1df']);
  expect(labels(`dask-gateway.${ID}`)).toEqual(['7f3b2c']);
  expect(labels('tcp://127.0.0.1:8786')).toEqual(['tcp://127.0.0.1:8786']);
});

test('only http URLs and paths of this site are dashboard URLs', () => {
  for (const url of ['http://h/status', '/services/dask-gateway/x/status']) {
    expect(dashboardUrl(url)).toBe(url);
  }
  for (const url of [null, '', '//evil', '/\\evil', 'javascript:alert(1)']) {
    expect(dashboardUrl(url)).toBeNull();
  }
});

test('a requested change is noted until the cluster shows it', async () => {
  const api = {
    scale: vi.fn(async () => ({ remark: '' })),
    shutDown: vi.fn(async () => ({ remark: '' }))
  };
  const changes = new ClusterChanges(api);
  const note = (values: Partial<ICluster> = {}) =>
    changes.note(listed(values), trans)?.text;
  expect(note()).toBeUndefined();
  const scaling = changes.scale(ID, 4);
  expect(changes.isRequested(ID)).toBe(true);
  await scaling;
  expect(changes.isRequested(ID)).toBe(false);
  expect(api.scale).toHaveBeenCalledWith(ID, 4);
  expect(note()).toBe('Requested 4 workers.');
  expect(note({ workers: 4 })).toBeUndefined();
  api.scale.mockResolvedValueOnce({ remark: 'Scaling to 2 instead.' });
  await changes.scale(ID, 40);
  expect(note({ workers: 2 })).toBe(
    'Requested 40 workers. Scaling to 2 instead.'
  );
  const ending = changes.shutDown(ID);
  expect(note()).toBe('Shutting down…');
  expect(changes.isGone(ID)).toBe(false);
  await ending;
  expect(changes.isGone(ID)).toBe(true);
  changes.dispose();
});

test('the reason for a failed change is shown, and it can be retried', async () => {
  const refused = vi.fn().mockRejectedValue(new Error('You have none.'));
  const changes = new ClusterChanges({ scale: refused, shutDown: refused });
  await changes.shutDown(ID);
  expect(changes.note(listed(), trans)).toEqual({
    text: 'Not shut down: You have none.',
    failed: true
  });
  expect(changes.isGone(ID)).toBe(false);
  await changes.scale(ID, 1);
  expect(changes.note(listed(), trans)?.text).toBe(
    'Not scaled: You have none.'
  );
  expect(changes.isRequested(ID)).toBe(false);
  changes.dispose();
});
