import type { Kernel } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import { expect, test, vi } from 'vitest';

import { SessionsModel, TARGET } from '../src/models/sessions';

const session = {
  endpoint: 'grpcs://triton:443',
  user: 'alice',
  busy: false,
  label: null,
  done: null,
  total: null,
  inferences_per_second: null,
  inferences: 7,
  clusters: []
};

/** The used part of a kernel connection; one kernel may have several. */
class Connection {
  constructor(
    readonly clientId: string,
    readonly handleComms = true,
    readonly known: string[] = []
  ) {}

  readonly isDisposed = false;
  readonly targets = new Map<string, unknown>();
  readonly comms = new Map<string, { send: ReturnType<typeof vi.fn> }>();
  readonly anyMessage = new Signal<this, Kernel.IAnyMessageArgs>(this);
  readonly statusChanged = new Signal<this, Kernel.Status>(this);
  readonly interrupt = vi.fn(async () => undefined);

  registerCommTarget(name: string, accept: unknown): void {
    this.targets.set(name, accept);
  }

  removeCommTarget(name: string): void {
    this.targets.delete(name);
  }

  hasComm(id: string): boolean {
    return this.comms.has(id);
  }

  createComm(_: string, id: string): unknown {
    if (!this.handleComms) {
      throw new Error('Comms are disabled on this kernel connection');
    }
    const comm = { send: vi.fn() };
    this.comms.set(id, comm);
    return comm;
  }

  async requestCommInfo(): Promise<unknown> {
    const comms = Object.fromEntries(this.known.map(id => [id, {}]));
    return { content: { status: 'ok', comms } };
  }

  emit(msg_type: string, comm_id: string, data: unknown = {}): void {
    const content = { comm_id, target_name: TARGET, data };
    const msg = { header: { msg_type }, content };
    this.anyMessage.emit({
      msg,
      direction: 'recv'
    } as unknown as Kernel.IAnyMessageArgs);
  }
}

function follow(sessions: SessionsModel, path: string, kernel: Connection) {
  const notebook = { title: path, path, reveal: vi.fn() };
  return sessions.follow(
    notebook,
    kernel as unknown as Kernel.IKernelConnection
  );
}

const rows = (sessions: SessionsModel) =>
  sessions.all.map(each => [each.notebook.path, each.session?.inferences]);

test('a notebook is listed while its kernel is connected', async () => {
  const sessions = new SessionsModel();
  const kernel = new Connection('page');
  follow(sessions, 'a.ipynb', kernel);
  expect([...kernel.targets.keys()]).toEqual([TARGET]); // otherwise JupyterLab closes the comm
  kernel.emit('comm_open', 'c', { session });
  kernel.emit('comm_msg', 'c', { session: { ...session, inferences: 9 } });
  kernel.emit('comm_msg', 'widget', { method: 'update', state: { session } });
  kernel.emit('comm_close', 'widget');
  expect(rows(sessions)).toEqual([['a.ipynb', 9]]);
  await sessions.all[0].stop();
  expect(kernel.interrupt).toHaveBeenCalledOnce();
  kernel.emit('comm_close', 'c');
  expect(rows(sessions)).toEqual([]);
});

test('a reloaded page requests the session at once, and only once', async () => {
  const sessions = new SessionsModel();
  const kernel = new Connection('page', true, ['c']);
  follow(sessions, 'a.ipynb', kernel);
  await vi.waitFor(() =>
    expect(rows(sessions)).toEqual([['a.ipynb', undefined]])
  );
  expect(kernel.comms.get('c')?.send).toHaveBeenCalledOnce();
  kernel.emit('comm_msg', 'c', { session });
  expect(rows(sessions)).toEqual([['a.ipynb', 7]]);
  expect(kernel.comms.get('c')?.send).toHaveBeenCalledOnce();
});

test('while a cell runs, a reloaded page adopts the comm of a message', () => {
  const sessions = new SessionsModel();
  const kernel = new Connection('page');
  follow(sessions, 'a.ipynb', kernel);
  kernel.emit('comm_msg', 'c', { session });
  expect(kernel.hasComm('c')).toBe(true); // otherwise JupyterLab reports "Comm not found" on close
  expect(rows(sessions)).toEqual([['a.ipynb', 7]]);
});

test('both notebooks of one kernel are listed', async () => {
  const sessions = new SessionsModel();
  const first = new Connection('first', true, ['c']);
  const second = new Connection('second', false, ['c']);
  const leave = follow(sessions, 'a.ipynb', first);
  follow(sessions, 'b.ipynb', second);
  await vi.waitFor(() => expect(sessions.all).toHaveLength(2));
  first.emit('comm_msg', 'c', { session });
  second.emit('comm_msg', 'c', { session });
  expect(rows(sessions)).toEqual([
    ['a.ipynb', 7],
    ['b.ipynb', 7]
  ]);
  expect(new Set(sessions.all.map(each => each.id)).size).toBe(2);
  leave(); // its notebook is closed
  second.emit('comm_msg', 'c', { session: { ...session, inferences: 8 } });
  expect(rows(sessions)).toEqual([['b.ipynb', 8]]);
  expect(sessions.isConnected('a.ipynb')).toBe(false);
});

test.each([
  ['restarting', 'restarting', null],
  ['autorestarting', 'died', 'died'],
  ['dead', 'died', 'died'],
  ['terminating', null, null]
] as const)(
  'a kernel that is %s is not connected until its next session',
  (status, lost, later) => {
    const sessions = new SessionsModel();
    const changed = vi.fn();
    sessions.changed.connect(changed);
    const kernel = new Connection('page');
    follow(sessions, 'a.ipynb', kernel);
    kernel.emit('comm_open', 'c', { session });
    kernel.statusChanged.emit('busy');
    const seen = () =>
      sessions.all.map(each => each.lost ?? each.session?.endpoint);
    expect(seen()).toEqual([session.endpoint]);
    changed.mockClear();
    kernel.statusChanged.emit(status);
    expect(seen()).toEqual(lost ? [lost] : []);
    expect(sessions.isConnected('a.ipynb')).toBe(false);
    expect(changed).toHaveBeenCalledOnce();
    kernel.statusChanged.emit('idle');
    expect(seen()).toEqual(later ? [later] : []);
    kernel.emit('comm_open', 'd', { session });
    expect(rows(sessions)).toEqual([['a.ipynb', 7]]);
  }
);

test('a notebook closed before its kernel answers is not listed', async () => {
  const sessions = new SessionsModel();
  const kernel = new Connection('page', true, ['c']);
  follow(sessions, 'a.ipynb', kernel)();
  await Promise.resolve();
  await Promise.resolve();
  kernel.emit('comm_msg', 'c', { session });
  expect(sessions.all).toEqual([]);
  expect(kernel.targets.size).toBe(0);
});
