/**
 * An answer that the server is asked for now and then, while the panel is
 * visible.
 */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

export class AskedModel<T> implements IDisposable {
  /** Parameters: a name for the poll; how to ask; how often, in milliseconds, and how rarely after failures. */
  constructor(
    name: string,
    ask: () => Promise<T>,
    [every, slowest]: [number, number]
  ) {
    this._poll = new Poll<T>({
      name: `eaf-inference:${name}`,
      auto: false,
      factory: ask,
      frequency: { interval: every, backoff: true, max: slowest },
      standby: 'when-hidden'
    });
    this._poll.ticked.connect((_, state) => {
      if (state.phase === 'resolved') {
        this._answer = state.payload as T;
        this._changed.emit();
      }
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null until the server has answered. */
  get answer(): T | null {
    return this._answer;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** Ask while somebody looks. */
  set active(looks: boolean) {
    if (looks !== this._active) {
      this._active = looks;
      void (looks ? this._poll.refresh() : this._poll.stop());
    }
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private _active = false;
  private _answer: T | null = null;
  private _poll: Poll<T>;
  private _changed = new Signal<this, void>(this);
}
