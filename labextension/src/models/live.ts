/**
 * What the server tells, kept: facility, snapshots, advice, and how fresh they
 * are. Runs only while somebody who is visible holds it.
 */
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import {
  ApiError,
  Frame,
  IAdvice,
  IApi,
  IClusters,
  IFacility,
  ISnapshot,
  ISource
} from '../api';
import { Stream, StreamState } from '../stream';
import { isSilent } from './freshness';
import { IPoint, merged, pointOf } from './history';

const TICK = 1000;
/** While Triton is not there it is looked for, in milliseconds. */
const LOOK_AGAIN = 15000;

export class LiveModel implements IDisposable {
  constructor(
    private readonly _api: IApi,
    private readonly _stream: Stream
  ) {
    _stream.received.connect(this._onFrame, this);
    _stream.stateChanged.connect(this._onStreamState, this);
  }

  /** Anything that is shown may be different; at least every two seconds while held. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get facility(): IFacility | null {
    return this._facility;
  }

  /** Why the server could not be asked for the facility. */
  get failure(): ApiError | null {
    return this._failure;
  }

  /** The newest snapshot that says something. */
  get snapshot(): ISnapshot | null {
    return this._snapshot;
  }

  /** The figures, over the present run: what is shown as text. */
  get average(): ISnapshot | null {
    return this._average;
  }

  get advice(): IAdvice | null {
    return this._advice;
  }

  /** This user's Dask clusters; null until they are known. */
  get clusters(): IClusters | null {
    return this._clusters;
  }

  /** Where numbers come from, and how each fares now. */
  get sources(): readonly ISource[] {
    return this._sources;
  }

  get points(): readonly IPoint[] {
    return this._points;
  }

  get streamState(): StreamState {
    return this._stream.state;
  }

  /** When the last frame came, and when the shown snapshot did: milliseconds of this clock. */
  get heard(): number | null {
    return this._heard;
  }
  get measured(): number | null {
    return this._measured;
  }

  get isHeld(): boolean {
    return this._holders.size > 0;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  get interval(): number {
    return this._stream.interval;
  }
  get window(): number {
    return this._window;
  }

  configure(interval: number, window: number): void {
    this._stream.interval = interval;
    const longer = window > this._window;
    this._window = window;
    if (longer && this.isHeld) {
      void this._fillHistory();
    }
    this._changed.emit();
  }

  /** Somebody who shows clusters began, or ceased, to look. */
  wantClusters(who: string, wants: boolean): void {
    if (wants) {
      this._wantClusters.add(who);
    } else {
      this._wantClusters.delete(who);
    }
    this._stream.clusters = this._wantClusters.size > 0;
  }

  /** Somebody began, or ceased, to look. */
  hold(who: string, looks: boolean): void {
    const before = this.isHeld;
    if (looks) {
      this._holders.add(who);
    } else {
      this._holders.delete(who);
    }
    if (this.isHeld && !before) {
      this._heard = null;
      this._stream.start();
      this._ticking = setInterval(() => this._tick(), TICK);
      void this.refresh();
    } else if (before && !this.isHeld) {
      this._stream.stop();
      clearInterval(this._ticking);
    }
  }

  /** Ask for the facility again, and connect now if that was being put off. */
  async refresh(): Promise<void> {
    this._stream.retry();
    await this._ask();
  }

  private async _ask(): Promise<void> {
    this._asked = Date.now();
    try {
      this._facility = await this._api.facility();
      this._failure = null;
    } catch (error) {
      this._failure =
        error instanceof ApiError ? error : new ApiError(0, String(error));
      if (this._failure.status !== 0) {
        this._facility = null; // the server is there, and says no
      }
    }
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      clearInterval(this._ticking);
      this._stream.dispose();
      Signal.clearData(this);
    }
  }

  private _onFrame(_: Stream, frame: Frame): void {
    this._heard = Date.now();
    if (frame.type === 'facility') {
      this._facility = frame.facility;
      this._failure = null;
    } else if (frame.type === 'clusters') {
      this._clusters = frame;
    } else {
      this._take(frame.snapshot, frame.average, frame.advice);
    }
    this._emitted = this._heard;
    this._changed.emit();
  }

  private _take(
    snapshot: ISnapshot,
    average: ISnapshot,
    advice: IAdvice | null
  ): void {
    this._sources = snapshot.sources;
    if (isSilent(snapshot)) {
      return; // what was known stays on the screen, greyed
    }
    this._snapshot = snapshot;
    this._average = average;
    this._advice = advice;
    this._measured = Date.now();
    this._points = merged(this._points, [pointOf(snapshot)], this._window);
  }

  private _onStreamState(_: Stream, state: StreamState): void {
    if (state.kind === 'open') {
      this._heard = Date.now();
      void this._fillHistory();
    } else if (state.kind === 'waiting') {
      void this._ask(); // tells why; the stream takes its pause
    }
    this._changed.emit();
  }

  /** What was measured before this page listened, and while it did not. */
  private async _fillHistory(): Promise<void> {
    try {
      const { snapshots } = await this._api.history(this._window);
      const points = snapshots
        .filter(snapshot => !isSilent(snapshot))
        .map(pointOf);
      this._points = merged(this._points, points, this._window);
    } catch {
      return; // the lines begin now; a banner says that the server is away
    }
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  private _tick(): void {
    const now = Date.now();
    const isHere = this._facility?.state === 'connected';
    if (!isHere && now - this._asked >= LOOK_AGAIN) {
      void this.refresh();
    }
    if (now - this._emitted >= 1.5 * TICK) {
      this._changed.emit(); // ages grow
    }
  }

  private _facility: IFacility | null = null;
  private _failure: ApiError | null = null;
  private _snapshot: ISnapshot | null = null;
  private _average: ISnapshot | null = null;
  private _advice: IAdvice | null = null;
  private _clusters: IClusters | null = null;
  private _sources: readonly ISource[] = [];
  private _points: readonly IPoint[] = [];
  private _window = 120;
  private _heard: number | null = null;
  private _measured: number | null = null;
  private _emitted = 0;
  private _asked = 0;
  private _isDisposed = false;
  private _holders = new Set<string>();
  private _wantClusters = new Set<string>();
  private _ticking: ReturnType<typeof setInterval> | undefined;
  private _changed = new Signal<this, void>(this);
}
