import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { ISocket, Stream, parse, pause } from '../src/stream';
import { facility, snapshot } from './samples';

class FakeSocket implements ISocket {
  onopen: ISocket['onopen'] = null;
  onclose: ISocket['onclose'] = null;
  onmessage: ISocket['onmessage'] = null;
  sent: string[] = [];
  closed = false;

  send(text: string) {
    this.sent.push(text);
  }
  close() {
    this.closed = true;
  }
  open() {
    this.onopen?.({} as Event);
  }
  fail() {
    this.onclose?.({} as CloseEvent);
  }
  emit(data: unknown) {
    this.onmessage?.({ data } as MessageEvent);
  }
}

let sockets: FakeSocket[];
let stream: Stream;

beforeEach(() => {
  vi.useFakeTimers();
  sockets = [];
  stream = new Stream(
    () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    () => 0.5
  );
});

afterEach(() => {
  stream.dispose();
  vi.useRealTimers();
});

test('pauses grow to half a minute, with jitter', () => {
  expect([1, 2, 3, 4, 9].map(failures => pause(failures, 0.5))).toEqual([
    1, 2, 4, 8, 30
  ]);
  expect(pause(3, 0)).toBe(3);
  expect(pause(3, 1)).toBe(5);
});

test('only frames of the protocol are accepted', () => {
  const text = JSON.stringify({
    type: 'snapshot',
    snapshot: snapshot(),
    average: snapshot(),
    advice: null
  });
  expect(parse(text)?.type).toBe('snapshot');
  expect(
    parse(JSON.stringify({ type: 'facility', facility: facility() }))?.type
  ).toBe('facility');
  for (const other of ['', '{', 'null', '3', '{"type":"snapshot"}', 3, null]) {
    expect(parse(other)).toBeNull();
  }
});

test('nothing is open before the start or after the stop', () => {
  expect(sockets).toHaveLength(0);
  stream.start();
  stream.start();
  expect(sockets).toHaveLength(1);
  stream.stop();
  expect(sockets[0].closed).toBe(true);
  vi.advanceTimersByTime(600_000);
  expect(sockets).toHaveLength(1);
  expect(stream.state.kind).toBe('closed');
});

test('the request is sent when the socket opens, and when it changes', () => {
  stream.interval = 2;
  stream.start();
  sockets[0].open();
  stream.interval = 5;
  stream.interval = 5;
  stream.clusters = true;
  stream.clusters = true;
  expect(sockets[0].sent).toEqual([
    '{"interval":2,"clusters":false}',
    '{"interval":5,"clusters":false}',
    '{"interval":5,"clusters":true}'
  ]);
});

test('pauses between attempts grow until a frame arrives', () => {
  stream.start();
  for (const seconds of [1, 2, 4]) {
    sockets[sockets.length - 1].fail();
    expect(stream.state.kind).toBe('waiting');
    const before = sockets.length;
    vi.advanceTimersByTime(seconds * 1000 - 1);
    expect(sockets).toHaveLength(before);
    vi.advanceTimersByTime(1);
    expect(sockets).toHaveLength(before + 1);
  }
  sockets[3].open();
  sockets[3].emit('anything');
  sockets[3].fail();
  vi.advanceTimersByTime(1000);
  expect(sockets).toHaveLength(5);
});

test('a silent socket is replaced', () => {
  stream.start();
  sockets[0].open();
  vi.advanceTimersByTime(17_000);
  sockets[0].emit('{}');
  vi.advanceTimersByTime(17_000);
  expect(stream.state.kind).toBe('open');
  vi.advanceTimersByTime(1_000);
  expect(stream.state.kind).toBe('waiting');
  expect(sockets[0].closed).toBe(true);
});

test('retry does not wait', () => {
  stream.start();
  sockets[0].fail();
  stream.retry();
  expect(sockets).toHaveLength(2);
  vi.advanceTimersByTime(5_000);
  expect(sockets).toHaveLength(2);
});

test('a late message of an old socket is ignored', () => {
  const heard = vi.fn();
  stream.received.connect(heard);
  stream.start();
  const { onmessage } = sockets[0];
  stream.stop();
  expect(onmessage).not.toBeNull();
  expect(sockets[0].onmessage).toBeNull();
  expect(heard).not.toHaveBeenCalled();
});

test('a socket that cannot be created is retried', () => {
  const broken = new Stream(
    () => {
      throw new Error('no');
    },
    () => 0.5
  );
  broken.start();
  expect(broken.state.kind).toBe('waiting');
  broken.dispose();
});
