/**
 * This user's Dask clusters: asked for now and then while the panel is visible.
 */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { IApi, ICluster, IClusters, ISession } from '../api';

const EVERY = 5000;
const SLOWEST = 60000;

/**
 * The gateway's clusters with what this browser's kernels know of them. A
 * kernel counts what its own workers did, so its numbers go first; clusters
 * that only a kernel knows (a LocalCluster) are listed too.
 */
export function mergedClusters(
  listed: readonly ICluster[],
  sessions: readonly (ISession | null)[]
): ICluster[] {
  const byName = new Map(listed.map(cluster => [cluster.name, cluster]));
  for (const session of sessions) {
    for (const known of session?.clusters ?? []) {
      const cluster = byName.get(known.name);
      byName.set(known.name, {
        name: known.name,
        status: cluster?.status ?? known.state,
        workers: known.workers ?? cluster?.workers ?? null,
        configured: known.configured ?? cluster?.configured ?? null,
        inferences_per_second:
          known.inferences_per_second ?? cluster?.inferences_per_second ?? null,
        oldest_token: cluster?.oldest_token ?? null,
        dashboard: cluster?.dashboard ?? null
      });
    }
  }
  return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

export class ClustersModel implements IDisposable {
  constructor(api: IApi) {
    this._poll = new Poll({
      name: 'eaf-inference:clusters',
      auto: false,
      factory: () => api.clusters(),
      frequency: { interval: EVERY, backoff: true, max: SLOWEST },
      standby: 'when-hidden'
    });
    this._poll.ticked.connect((_, state) => {
      if (state.phase === 'resolved') {
        this._answer = state.payload as IClusters;
        this._changed.emit();
      }
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null until the server has answered. */
  get answer(): IClusters | null {
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
  private _answer: IClusters | null = null;
  private _poll: Poll;
  private _changed = new Signal<this, void>(this);
}
