import { expect, test } from 'vitest';

import type { IWidgetPresence } from '../src/api';
import { liveness, Presence, SILENCE } from '../src/models/presence';

function view() {
  const page = { visible: true, sent: [] as IWidgetPresence[] };
  const presence = new Presence(
    message => page.sent.push(message),
    () => page.visible,
    0
  );
  return { page, presence };
}

const here = { view: expect.any(String), seen: true };

test('a view answers while its page is visible, and says when it goes', () => {
  const { page, presence } = view();
  presence.come();
  presence.hear(0, { answer: true });
  expect(page.sent).toEqual([here, here]);
  page.visible = false;
  presence.hear(0, { answer: true });
  expect(page.sent).toHaveLength(2);
  presence.go();
  expect(page.sent[2]).toEqual({ ...page.sent[0], seen: false });
});

test('nothing is sent to a kernel that runs a cell', () => {
  const { page, presence } = view();
  presence.hear(0, { answer: false });
  presence.hear(1000);
  presence.call(1000 * SILENCE);
  expect(page.sent).toEqual([]);
});

test('a silent kernel is called a few times, and again after a message', () => {
  const { page, presence } = view();
  for (let second = 0; second < 600; second += 1) {
    presence.call(1000 * second);
  }
  expect(page.sent).toEqual([here, here, here]);
  presence.hear(600_000);
  presence.call(600_000 + 1000 * (SILENCE + 1));
  expect(page.sent).toHaveLength(4);
});

test('each view has its own id', () => {
  const names = [0, 1].map(() => {
    const sent: IWidgetPresence[] = [];
    new Presence(
      message => sent.push(message),
      () => true,
      0
    ).go();
    return sent[0].view;
  });
  expect(names[0]).not.toBe(names[1]);
});

test.each([
  [{ silence: 1 }, 'live', 'live'],
  [{ silence: 13 }, 'stale', 'no news from the kernel for 13 s · 14:03:22'],
  [{ silence: 300 }, 'stale', 'no news from the kernel for 5 min · 14:03:22'],
  [{ silence: 300, at: '' }, 'stale', 'no news from the kernel for 5 min'],
  [
    { silence: 1, isHeard: false },
    'stale',
    'waiting for the kernel · 14:03:22'
  ],
  [
    { silence: 13, isHeard: false },
    'stale',
    'no news from the kernel for 13 s · 14:03:22'
  ],
  [{ silence: 1, problem: 'No metrics.' }, 'stale', 'No metrics.'],
  [
    { silence: 13, problem: 'No metrics.' },
    'stale',
    'no news from the kernel for 13 s · 14:03:22'
  ],
  [{ silence: 900, stopped: true }, 'stopped', 'stopped · 14:03:22'],
  [{ silence: 0, stopped: true, at: '' }, 'stopped', 'stopped']
])('%j is %s', (known, state, text) => {
  const usual = {
    stopped: false,
    problem: '',
    isHeard: true,
    silence: 0,
    at: '14:03:22'
  };
  expect(liveness({ ...usual, ...known })).toEqual({ state, text });
});
