/**
 * Whether a widget's view is looked at, as the kernel is told, and whether its
 * kernel is still there, as the user is told.
 *
 * A kernel cannot see a page close. It asks, between cells, and a view answers
 * while its page is visible; nothing is sent while a cell runs, when messages
 * would only wait.
 */
import { duration } from './format';

/** Seconds without news after which a kernel may be gone; it asks twice in that time. */
export const SILENCE = 12;
/** So often a view speaks into a silence: a kernel that has ended is not asked for ever. */
const CALLS = 3;

export interface IPresence {
  view: string;
  seen: boolean;
}

export class Presence {
  /** Parameters: how to speak; whether the page is looked at; now, in milliseconds. */
  constructor(
    private readonly _send: (message: IPresence) => void,
    private readonly _isVisible: () => boolean,
    now: number
  ) {
    this._since = now;
  }

  /** The view is made, or its page is looked at again. */
  come(): void {
    if (this._isVisible()) {
      this._send({ view: this._view, seen: true });
    }
  }

  /** The view's output is cleared. */
  go(): void {
    this._send({ view: this._view, seen: false });
  }

  /** Anything came of the kernel. */
  hear(now: number, message?: unknown): void {
    this._since = now;
    this._isHeard = true;
    this._calls = 0;
    if ((message as { answer?: boolean } | undefined)?.answer) {
      this.come();
    }
  }

  /** Whether the kernel was ever heard. */
  get isHeard(): boolean {
    return this._isHeard;
  }

  /** Seconds since it was, or since the view was made. */
  silence(now: number): number {
    return (now - this._since) / 1000;
  }

  /** Call a kernel that rests, since it thinks that nobody looks. */
  call(now: number): void {
    if (
      this._calls < CALLS &&
      this.silence(now) > SILENCE * (this._calls + 1)
    ) {
      this._calls += 1;
      this.come();
    }
  }

  private readonly _view = crypto.getRandomValues(new Uint32Array(2)).join('-');
  private _since: number;
  private _isHeard = false;
  private _calls = 0;
}

export type Liveness = 'live' | 'stale' | 'stopped';

/** What stands beside the title: whether the numbers are of now, or why not, and of when they are. */
export function liveness(known: {
  stopped: boolean;
  problem: string;
  /** As `Presence` gives them. */
  isHeard: boolean;
  silence: number;
  /** When the numbers were measured, for the reader; empty without any. */
  at: string;
}): { state: Liveness; text: string } {
  const { stopped, problem, isHeard, silence, at } = known;
  const of = at && ` · ${at}`;
  if (stopped) {
    return { state: 'stopped', text: problem || `stopped${of}` };
  }
  if (silence > SILENCE) {
    return {
      state: 'stale',
      text: `no news from the kernel for ${duration(silence)}${of}`
    };
  }
  if (problem) {
    return { state: 'stale', text: problem };
  }
  return isHeard
    ? { state: 'live', text: 'live' }
    : { state: 'stale', text: `waiting for the kernel${of}` };
}
