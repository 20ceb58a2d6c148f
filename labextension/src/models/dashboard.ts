/**
 * The dashboard's views and time ranges, as commands and the saved layout name
 * them, and the data behind all tabs.
 */
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import type { IApi, ISnapshot } from '../api';
import { LiveModel } from './live';
import { EACH, STEP, Timeline } from './timeline';

export const VIEWS = [
  'all',
  'gpus',
  'queue',
  'models',
  'clusters',
  'usage'
] as const;
export type View = (typeof VIEWS)[number];

/** Seconds. */
export const RANGES = [60, 300, 600, 1800, 3600] as const;
const USUAL_RANGE = 300;

/** The view that a command's argument names; by default all. */
export function readView(argument: unknown): View {
  return VIEWS.find(view => view === argument) ?? 'all';
}

/** The range that a command's argument names; by default five minutes. */
export function readRange(argument: unknown): number {
  return RANGES.find(range => range === argument) ?? USUAL_RANGE;
}

const eachOne = () => new Timeline(0, EACH);
const meansOf = () => new Timeline(STEP, RANGES[RANGES.length - 1]);

/** The last hour, for all tabs: fetched when a tab needs it, and kept current while any tab is visible. */
export class DashboardModel implements IDisposable {
  constructor(
    private readonly _api: IApi,
    readonly live: LiveModel
  ) {
    live.changed.connect(this._onLive, this);
  }

  /** Emitted when the shown data may differ. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** The timeline that covers this many seconds. */
  timeline(range: number): Timeline {
    return range <= EACH ? this._each : this._means;
  }

  /** Note the range of a visible tab; null when it is hidden. */
  hold(tab: string, range: number | null): void {
    if (range === null) {
      this._held.delete(tab);
    } else {
      this._held.set(tab, range);
      if (this._isOpen) {
        this._want(range); // otherwise once the stream is open
      }
    }
    if (!this._held.size) {
      this._reach.clear(); // snapshots are missed from now on
    }
    this.live.hold(tab, range !== null);
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      Signal.clearData(this);
    }
  }

  private _onLive(): void {
    const { facility, snapshot, streamState, interval } = this.live;
    const isOpen = streamState.kind === 'open';
    const url = facility?.endpoint?.url ?? this._url;
    if (url !== this._url) {
      this._each = eachOne(); // the measurements are another server's
      this._means = meansOf();
    }
    if (isOpen && (!this._isOpen || url !== this._url)) {
      this._reach.clear(); // there may be a gap
      new Set(this._held.values()).forEach(range => this._want(range));
    }
    this._isOpen = isOpen;
    this._url = url;
    if (snapshot && snapshot !== this._snapshot && this._held.size) {
      this._snapshot = snapshot;
      this._each.add(snapshot, interval);
      this._means.add(snapshot, interval);
    }
    this._changed.emit();
  }

  /** Fetch the range unless it is here already. */
  private _want(range: number): void {
    const timeline = this.timeline(range);
    if (range > (this._reach.get(timeline) ?? 0)) {
      this._reach.set(timeline, range);
      void this._fill(timeline, range);
    }
  }

  private async _fill(timeline: Timeline, range: number): Promise<void> {
    try {
      const columns = await this._api.timeline(range);
      if ((this._reach.get(timeline) ?? range) <= range) {
        timeline.fill(columns);
      }
    } catch {
      this._reach.delete(timeline);
      return; // the lines begin now; the banner reports the failure
    }
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  private _each = eachOne();
  private _means = meansOf();
  private readonly _held = new Map<string, number>();
  /** How many seconds of each timeline were requested. */
  private readonly _reach = new Map<Timeline, number>();
  private _snapshot: ISnapshot | null = null;
  private _url = '';
  private _isOpen = false;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
}
