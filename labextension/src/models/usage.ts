/**
 * What this user had of the facility in the last day.
 */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import type { IApi, IModelUsage, IUsage } from '../api';

/** Milliseconds; the second after failures. */
const EVERY = 60_000;
const SLOWEST = 600_000;

/** What is said of one model, or of all. */
export interface IUsed {
  requests: number;
  inferences: number;
  failures: number;
  /** In and out. */
  bytes: number;
  estimated: boolean;
}

/** All models together, also what failed and named none. */
export function total(models: readonly IModelUsage[]): IUsed {
  const all: IUsed = {
    requests: 0,
    inferences: 0,
    failures: 0,
    bytes: 0,
    estimated: false
  };
  for (const each of models) {
    all.requests += each.requests;
    all.inferences += each.inferences;
    all.failures += each.failures;
    all.bytes += each.bytes_in + each.bytes_out;
    all.estimated ||= each.estimated;
  }
  return all;
}

/** The models that were asked by name, the most inferences first; none where there is but one, as that is the total. */
export function byModel(models: readonly IModelUsage[]): IModelUsage[] {
  const named = models.filter(each => each.model);
  return named.length > 1
    ? named.sort((a, b) => b.inferences - a.inferences)
    : [];
}

/** Asked for now and then, while somebody looks. */
export class UsageModel implements IDisposable {
  constructor(api: IApi) {
    this._poll = new Poll<IUsage>({
      name: 'eaf-inference:usage',
      auto: false,
      factory: () => api.usage(),
      frequency: { interval: EVERY, backoff: true, max: SLOWEST },
      standby: 'when-hidden'
    });
    this._poll.ticked.connect((_, state) => {
      if (state.phase === 'resolved') {
        this._answer = state.payload as IUsage;
        this._changed.emit();
      }
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null until the server has answered. */
  get answer(): IUsage | null {
    return this._answer;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** Somebody began, or ceased, to look: it is asked for while anybody does. */
  hold(who: string, looks: boolean): void {
    const before = this._holders.size > 0;
    if (looks) {
      this._holders.add(who);
    } else {
      this._holders.delete(who);
    }
    if (before !== this._holders.size > 0) {
      void (before ? this._poll.stop() : this._poll.refresh());
    }
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private readonly _holders = new Set<string>();
  private _answer: IUsage | null = null;
  private _poll: Poll<IUsage>;
  private _changed = new Signal<this, void>(this);
}
