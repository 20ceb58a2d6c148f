import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type { IApi } from '../src/api';
import { DashboardModel, readRange, readView } from '../src/models/dashboard';
import { LiveModel } from '../src/models/live';
import { Stream, type ISocket } from '../src/stream';
import { columnsOf, facility, snapshot } from './samples';

const socket: ISocket = {
  onopen: null,
  onclose: null,
  onmessage: null,
  send: () => undefined,
  close: () => undefined
};
let asked: number[];
let away: boolean;
let live: LiveModel;
let model: DashboardModel;

const api: IApi = {
  facility: () => Promise.resolve(facility()),
  usage: () => Promise.reject(new Error('not expected')),
  history: () =>
    Promise.resolve({
      interval: 1,
      snapshots: [],
      average: null,
      advice: null
    }),
  timeline: seconds => {
    asked.push(seconds);
    return away
      ? Promise.reject(new Error('away'))
      : Promise.resolve(columnsOf([100, 101], { cpu: [0.1, 0.2] }));
  }
};

const settle = () => vi.advanceTimersByTimeAsync(0);
const tell = (time: number) =>
  socket.onmessage?.({
    data: JSON.stringify({
      type: 'snapshot',
      snapshot: snapshot({ time }),
      average: snapshot({ time }),
      advice: null
    })
  } as MessageEvent);

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  away = false;
  live = new LiveModel(api, new Stream(() => socket));
  model = new DashboardModel(api, live);
});

afterEach(() => {
  model.dispose();
  live.dispose();
  vi.useRealTimers();
});

test('a longer range is fetched, a shorter one is not', async () => {
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  await settle();
  asked = [];
  model.hold('tab', 60);
  model.hold('another', 300);
  expect(asked).toEqual([]);
  model.hold('tab', 600);
  model.hold('tab', 3600);
  model.hold('tab', 1800);
  expect(asked).toEqual([600, 3600]);
  await settle();
  expect(model.timeline(3600)).not.toBe(model.timeline(600));
  tell(102);
  expect(model.timeline(600).times).toEqual([100, 101, 102]);
});

test('nothing is kept while hidden, and all is fetched again', async () => {
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  await settle();
  model.hold('tab', null);
  expect(live.isHeld).toBe(false);
  asked = [];
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  expect(asked).toEqual([300]);
});

test('after a gap in the connection all is fetched again', async () => {
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  await settle();
  asked = [];
  socket.onclose?.({} as CloseEvent);
  await vi.advanceTimersByTimeAsync(2000);
  socket.onopen?.({} as Event);
  expect(asked).toEqual([300]);
});

test('measurements of another server are discarded', async () => {
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  await settle();
  expect(model.timeline(300).times).toEqual([100, 101]);
  asked = [];
  const endpoint = { url: 'grpc://another', urls: [], source: '' };
  const frame = { type: 'facility', facility: facility({ endpoint }) };
  socket.onmessage?.({ data: JSON.stringify(frame) } as MessageEvent);
  expect(model.timeline(300).times).toEqual([]);
  expect(asked).toEqual([300]);
});

test('a failed request is repeated with the next tab', async () => {
  away = true;
  model.hold('tab', 300);
  socket.onopen?.({} as Event);
  await settle();
  away = false;
  asked = [];
  model.hold('tab', 300);
  await settle();
  expect(asked).toEqual([300]);
  expect(model.timeline(300).times).toEqual([100, 101]);
});

test('invalid command arguments have defaults', () => {
  expect(readView('queue')).toBe('queue');
  expect(readView('nothing of ours')).toBe('all');
  expect(readRange(3600)).toBe(3600);
  expect(readRange('3600')).toBe(300);
  expect(readRange(Infinity)).toBe(300);
});
