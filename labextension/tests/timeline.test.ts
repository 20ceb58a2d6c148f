import { expect, test } from 'vitest';

import { busiest } from '../src/models/lines';
import {
  EACH,
  STEP,
  Timeline,
  gpuKey,
  memoryKey,
  modelKey,
  nameOf
} from '../src/models/timeline';
import { columnsOf, gpu, load, snapshot } from './samples';

const GIBIBYTE = 2 ** 30;
const A = modelKey('a', '1');

const rated = (time: number, rate: number | null, name = 'a') =>
  snapshot({ time, models: [load({ name, inferences_per_second: rate })] });

const filled = (step: number, ...snapshots: ReturnType<typeof snapshot>[]) => {
  const timeline = new Timeline(step, 3600);
  snapshots.forEach(each => timeline.add(each, 1));
  return timeline;
};

test('new snapshots extend the columns of the server', () => {
  const timeline = new Timeline(0, EACH);
  timeline.fill(
    columnsOf([10, 11], {
      cpu: [0.1, null],
      gpus: [
        {
          ...gpu({ id: 'x', memory_total: 4 * GIBIBYTE }),
          utilization: [0.5, 0],
          memory_used: [GIBIBYTE, null]
        }
      ]
    })
  );
  timeline.add(snapshot({ time: 11 }), 1); // known already
  const newest = gpu({ id: 'x', utilization: 0.7, memory_used: GIBIBYTE });
  timeline.add(snapshot({ time: 12, gpus: [newest] }), 1);
  expect(timeline.times).toEqual([10, 11, 12]);
  expect(timeline.column('cpu')).toEqual([0.1, null, null]);
  expect(timeline.column(gpuKey('x'))).toEqual([0.5, 0, 0.7]);
  expect(timeline.column(memoryKey('x'))).toEqual([1, null, 1]);
  expect(timeline.gpus).toEqual([newest]);
});

test('snapshots that arrive during the request are kept', () => {
  const timeline = filled(0, rated(12, 3));
  timeline.fill(columnsOf([10, 11]));
  expect(timeline.times).toEqual([10, 11, 12]);
  expect(timeline.column(A)).toEqual([null, null, 3]);
});

test('a gap in the measurements interrupts the lines', () => {
  const timeline = new Timeline(0, EACH);
  timeline.fill(columnsOf([10, 30], { cpu: [0.1, 0.2] }));
  timeline.add(rated(60, 1), 1);
  expect(timeline.times).toEqual([10, 20, 30, 45, 60]);
  expect(timeline.column('cpu')).toEqual([0.1, null, 0.2, null, null]);
  const slow = new Timeline(STEP, 3600);
  slow.fill(columnsOf([10, 20], { step: 10 }));
  expect(slow.times).toEqual([10, 20]);
});

test('an hour is kept as means of five seconds, drawn when complete', () => {
  const timeline = filled(STEP, rated(10, 1), rated(11, 2));
  const { version } = timeline;
  timeline.add(rated(12, 6), 1);
  expect(timeline.times).toEqual([11]);
  expect(timeline.column(A)).toEqual([3]);
  expect(timeline.version).toBe(version);
  timeline.add(rated(15, null), 1);
  expect(timeline.times).toEqual([11, 15]);
  expect(timeline.column(A)).toEqual([3, null]);
  expect(timeline.version).toBeGreaterThan(version);
});

test('after the clock was set back, the lines continue', () => {
  for (const step of [0, STEP]) {
    const times = [100, 110, 120, 130, 112, 122];
    const timeline = filled(step, ...times.map(time => rated(time, time)));
    const rates = timeline.column(A).filter(rate => rate !== null);
    expect(rates).toEqual([100, 110, 112, 122]);
    expect(timeline.times).toEqual([...timeline.times].sort((a, b) => a - b));
  }
});

test('values older than the longest range are dropped', () => {
  const timeline = new Timeline(0, 2);
  [1, 2, 3, 4].forEach(time => timeline.add(rated(time, time), 1));
  expect(timeline.times).toEqual([2, 3, 4]);
  expect(timeline.column(A)).toEqual([2, 3, 4]);
});

test('the number of model columns is bounded', () => {
  const timeline = new Timeline(0, EACH);
  for (let time = 1; time < 300; time++) {
    timeline.add(rated(time, 1, `m${time}`), 1);
  }
  expect(timeline.models(EACH).length).toBeLessThan(100);
});

test('the busiest models of a range come first', () => {
  const name = 'model x\nof two lines';
  const timeline = filled(0, rated(1, 100), rated(100, 5), rated(101, 9, name));
  expect(timeline.models(60)).toEqual([
    [modelKey(name, '1'), 9],
    [A, 5]
  ]);
  expect(timeline.models(600)[0]).toEqual([A, 105]);
  expect(nameOf(modelKey(name, '1'))).toBe(name);
});

test('a line keeps its colour until a much busier model replaces it', () => {
  const first = busiest([['a', 9], ['b', 8], ['c', 7]], new Map(), 2); // prettier-ignore
  expect([...first.of]).toEqual([['a', 0], ['b', 1]]); // prettier-ignore
  expect(first.hasMore).toBe(true);
  const still = busiest([['b', 8], ['c', 7.9], ['a', 7]], first.of, 2); // prettier-ignore
  expect([...still.of]).toEqual([['a', 0], ['b', 1]]); // prettier-ignore
  const then = busiest([['c', 20], ['b', 8], ['a', 7]], still.of, 2); // prettier-ignore
  expect([...then.of]).toEqual([['c', 0], ['b', 1]]); // prettier-ignore
});

test('idle models have no line', () => {
  const none = busiest([['a', 0]], new Map(), 8);
  expect(none.of.size).toBe(0);
  expect(none.hasMore).toBe(false);
});
