import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { ApiError, type IApi, type IFacility } from '../src/api';
import { LiveModel } from '../src/models/live';
import { Stream, type ISocket } from '../src/stream';
import { facility, failing, gpu, snapshot } from './samples';

const socket: ISocket = {
  onopen: null,
  onclose: null,
  onmessage: null,
  send: () => undefined,
  close: () => undefined
};
let answer: () => Promise<IFacility>;
let asked: number;
let history: number[];
let live: LiveModel;

const api: IApi = {
  facility: () => {
    asked += 1;
    return answer();
  },
  usage: () => Promise.reject(new Error('not expected')),
  timeline: () => Promise.reject(new Error('not expected')),
  history: () =>
    Promise.resolve({
      interval: 1,
      snapshots: history.map(time => snapshot({ time })),
      average: null,
      advice: null
    })
};

const tell = (frame: object) =>
  socket.onmessage?.({ data: JSON.stringify(frame) } as MessageEvent);
const tellSnapshot = (values: object) =>
  tell({
    type: 'snapshot',
    snapshot: snapshot(values),
    average: snapshot(values),
    advice: null
  });

beforeEach(() => {
  vi.useFakeTimers();
  asked = 0;
  history = [];
  answer = () => Promise.resolve(facility());
  live = new LiveModel(api, new Stream(() => socket));
});

afterEach(() => {
  live.dispose();
  vi.useRealTimers();
});

test('without a visible widget nothing is requested or opened', async () => {
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toBe(0);
  live.hold('panel', true);
  live.hold('notebooks', true);
  live.hold('panel', false);
  expect(live.isHeld).toBe(true);
  live.hold('notebooks', false);
  expect(live.streamState.kind).toBe('closed');
  await vi.advanceTimersByTimeAsync(1000);
  const before = asked;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toBe(before);
  expect(vi.getTimerCount()).toBe(0);
});

test('the history is fetched when the stream opens', async () => {
  history = [997, 998];
  live.hold('panel', true);
  socket.onopen?.({} as Event);
  tellSnapshot({ time: 999 });
  await vi.advanceTimersByTimeAsync(0);
  expect(live.points.map(point => point.time)).toEqual([997, 998, 999]);
});

test('after the clock was set back, the lines continue', async () => {
  live.hold('panel', true);
  await vi.advanceTimersByTimeAsync(0);
  [9000, 9001, 1400, 1401].forEach(time => tellSnapshot({ time }));
  expect(live.points.map(point => point.time)).toEqual([1400, 1401]);
});

test('a failing source leaves the last numbers, with their age', async () => {
  live.hold('panel', true);
  socket.onopen?.({} as Event);
  tellSnapshot({ gpus: [gpu({ utilization: 0.5 })] });
  await vi.advanceTimersByTimeAsync(3000);
  tellSnapshot({ time: 1003, sources: [failing('http://a', 4)] });
  expect(live.snapshot?.gpus).toHaveLength(1);
  expect(live.points).toHaveLength(1);
  expect(Date.now() - (live.measured ?? 0)).toBe(3000);
  expect(live.sources[0].error).toBe('connection refused');
});

test('while Triton is away, the facility is requested repeatedly', async () => {
  answer = () => Promise.resolve(facility({ state: 'unreachable' }));
  live.hold('panel', true);
  await vi.advanceTimersByTimeAsync(100);
  expect(live.facility?.state).toBe('unreachable');
  const before = asked;
  await vi.advanceTimersByTimeAsync(16_000);
  expect(asked).toBeGreaterThan(before);
  tell({ type: 'facility', facility: facility() });
  expect(live.facility?.state).toBe('connected');
});

test('an HTTP error removes the facility, a lost connection does not', async () => {
  live.hold('panel', true);
  await vi.advanceTimersByTimeAsync(0);
  answer = () => Promise.reject(new ApiError(0, 'gone'));
  await live.refresh();
  expect(live.facility).not.toBeNull();
  answer = () => Promise.reject(new ApiError(403, 'no'));
  await live.refresh();
  expect(live.facility).toBeNull();
  expect(live.failure?.status).toBe(403);
});

test('a change is emitted every two seconds, because ages grow', async () => {
  live.hold('panel', true);
  await vi.advanceTimersByTimeAsync(0);
  const changed = vi.fn();
  live.changed.connect(changed);
  await vi.advanceTimersByTimeAsync(5000);
  expect(changed.mock.calls.length).toBeGreaterThanOrEqual(2);
});

test('a lost server is not contacted during the pause', async () => {
  let opened = 0;
  const counted = new LiveModel(
    api,
    new Stream(
      () => {
        opened += 1;
        return socket;
      },
      () => 0.5
    )
  );
  counted.hold('panel', true);
  for (let time = 0; time < 5; time++) {
    socket.onclose?.({} as CloseEvent);
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(opened).toBe(1);
  await vi.advanceTimersByTimeAsync(2000);
  expect(opened).toBe(2);
  counted.dispose();
});
