/**
 * Presence of a widget's view, reported to the kernel, and of its kernel, shown
 * to the user.
 *
 * A kernel does not notice when a page is closed. Between cells it asks, and a
 * view answers while its page is visible. Nothing is sent while a cell runs,
 * because the kernel would read it only afterwards.
 */
import type { IWidgetPresence, IWidgetQuestion } from '../api';
import { duration } from './format';

/** Seconds of silence after which the kernel may be gone; it asks twice in that time. */
export const SILENCE = 12;
/** How often a view calls a silent kernel before it gives up. */
const CALLS = 3;

export class Presence {
  /** Parameters: how to send; whether the page is visible; now, in milliseconds. */
  constructor(
    private readonly _send: (message: IWidgetPresence) => void,
    private readonly _isVisible: () => boolean,
    now: number
  ) {
    this._since = now;
  }

  /** The view was created, or its page is visible again. */
  come(): void {
    if (this._isVisible()) {
      this._send({ view: this._view, seen: true });
    }
  }

  /** The view's output was cleared. */
  go(): void {
    this._send({ view: this._view, seen: false });
  }

  /** Something arrived from the kernel. */
  hear(now: number, message?: unknown): void {
    this._since = now;
    this._isHeard = true;
    this._calls = 0;
    if ((message as Partial<IWidgetQuestion> | undefined)?.answer) {
      this.come();
    }
  }

  /** Whether anything ever arrived from the kernel. */
  get isHeard(): boolean {
    return this._isHeard;
  }

  /** Seconds since the last message, or since the view was created. */
  silence(now: number): number {
    return (now - this._since) / 1000;
  }

  /** Wake a kernel that sends nothing because it knows of no visible view. */
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

/** The text beside the title: whether the numbers are current, else the reason and their time. */
export function liveness(known: {
  stopped: boolean;
  problem: string;
  /** From `Presence`. */
  isHeard: boolean;
  silence: number;
  /** When the numbers were measured, as text; empty without numbers. */
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
