import { nullTranslator } from '@jupyterlab/translation';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type { IApi, IModelUsage, IUsage } from '../src/api';
import { UsageModel, byModel, problemOf, total } from '../src/models/usage';

const row = (values: Partial<IModelUsage> = {}): IModelUsage => ({
  model: 'particlenet',
  requests: 0,
  inferences: 0,
  failures: 0,
  bytes_in: 0,
  bytes_out: 0,
  estimated: false,
  ...values
});

const reported: IUsage = {
  offered: true,
  since: '1d',
  at: 1000,
  models: [],
  owned: [],
  problem: null
};

const trans = nullTranslator.load('');

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('the total includes failed calls without a known model', () => {
  const all = total([
    row({ requests: 3, inferences: 300, bytes_in: 1000, bytes_out: 24 }),
    row({ model: 'affine', requests: 1, inferences: 7, bytes_in: 6 }),
    row({ model: '', failures: 2, bytes_in: 70 })
  ]);
  expect(all).toEqual({
    requests: 4,
    inferences: 307,
    failures: 2,
    bytes: 1100,
    estimated: false
  });
  expect(total([row(), row({ estimated: true }), row()]).estimated).toBe(true);
  expect(total([]).requests).toBe(0);
});

test('several models are listed, the busiest first', () => {
  const nameless = row({ model: '', failures: 2 });
  expect(byModel([row({ inferences: 3 }), nameless])).toEqual([]);
  const names = byModel([
    row({ model: 'a', inferences: 3 }),
    nameless,
    row({ model: 'b', inferences: 30 })
  ]).map(each => each.model);
  expect(names).toEqual(['b', 'a']);
});

test('outdated numbers have their age, and a reason', () => {
  const of = (values: Partial<IUsage>) =>
    problemOf({ ...reported, ...values }, 8_200_000, trans);
  const problem = 'No answer within 8 s.';
  expect(of({ models: [row()] })).toBeNull();
  expect(of({ problem })).toBe(problem);
  expect(of({ problem, models: [row()], at: null })).toBe(problem);
  expect(of({ problem, models: [row()] })).toBe(
    `Numbers from 2 h ago. ${problem}`
  );
});

test('usage is requested at once and every minute, only while visible', async () => {
  const usage = vi.fn(async () => reported);
  const model = new UsageModel({ usage } as unknown as IApi);
  const changed = vi.fn();
  model.changed.connect(changed);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(usage).not.toHaveBeenCalled();
  model.hold('panel', true);
  await vi.advanceTimersByTimeAsync(1000);
  expect(usage).toHaveBeenCalledTimes(1);
  expect(model.answer).toEqual(reported);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(usage).toHaveBeenCalledTimes(3);
  expect(changed).toHaveBeenCalledTimes(3);
  model.hold('panel', false);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(usage).toHaveBeenCalledTimes(3);
  model.dispose();
});
