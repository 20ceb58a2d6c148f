import { expect, test } from 'vitest';

import {
  columns,
  gpuColumns,
  merged,
  pointOf,
  type IPoint
} from '../src/models/history';
import { gpu, load, snapshot } from './samples';

const at = (time: number, utilization: number | null = 0.5): IPoint =>
  pointOf(snapshot({ time, gpus: [gpu({ utilization })] }));

test('a point keeps missing values as null', () => {
  const point = pointOf(snapshot({ gpus: [gpu()] }));
  expect(point.busy).toBeNull();
  expect(point.cpu).toBeNull();
  expect(point.queue).toBeNull();
  expect(point.gpus.get('GPU-1')).toBeNull();
});

test("a point's queue time is the mean over requests", () => {
  const models = [
    load({ queue_ms: 10, requests_per_second: 3 }),
    load({ name: 'b', queue_ms: 50, requests_per_second: 1 }),
    load({ name: 'c', queue_ms: null, requests_per_second: 9 })
  ];
  expect(pointOf(snapshot({ models })).queue).toBe(20);
});

test('points are merged in order, without duplicates, within the window', () => {
  const points = merged([at(10), at(11), at(130)], [at(12), at(11)], 120);
  expect(points.map(point => point.time)).toEqual([10, 11, 12, 130]);
  expect(merged(points, [at(132)], 120).map(point => point.time)).toEqual([
    12, 130, 132
  ]);
});

test('a gap in the measurements interrupts the line', () => {
  const data = columns([at(1), at(2), at(30)], [point => point.time], 1);
  expect(data[0]).toEqual([1, 2, 16, 30]);
  expect(data[1]).toEqual([1, 2, null, 30]);
  expect(columns<IPoint>([], [point => point.time], 1)).toEqual([[], []]);
});

test('a long interval is not a gap', () => {
  const data = columns([at(0), at(10), at(20)], [() => 1], 10);
  expect(data[0]).toEqual([0, 10, 20]);
});

test('many GPUs give the mean, then each GPU, with gaps', () => {
  const both = pointOf(
    snapshot({
      time: 2,
      gpus: [
        gpu({ id: 'a', utilization: 0.2 }),
        gpu({ id: 'b', utilization: 0.4 })
      ]
    })
  );
  const one = pointOf(
    snapshot({ time: 1, gpus: [gpu({ id: 'a', utilization: 1 })] })
  );
  const [times, mean, a, b] = gpuColumns([one, both], ['a', 'b'], 1);
  expect(times).toEqual([1, 2]);
  expect(mean[0]).toBe(1);
  expect(mean[1]).toBeCloseTo(0.3);
  expect(a).toEqual([1, 0.2]);
  expect(b).toEqual([null, 0.4]);
});

test('64 GPUs over two minutes become columns within a millisecond or two', () => {
  const gpus = Array.from({ length: 64 }, (_, id) =>
    gpu({ id: `${id}`, utilization: id / 64 })
  );
  const points = Array.from({ length: 120 }, (_, time) =>
    pointOf(snapshot({ time, gpus }))
  );
  const ids = gpus.map(each => each.id);
  gpuColumns(points, ids, 1);
  const began = performance.now();
  for (let round = 0; round < 10; round++) {
    gpuColumns(points, ids, 1);
  }
  expect((performance.now() - began) / 10).toBeLessThan(16);
});
