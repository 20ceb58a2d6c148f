/**
 * What the server extension tells, typed: its REST calls and the frames of its
 * stream. A number that was not measured is null.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

const NAMESPACE = 'eaf-inference/api';

export interface IGpu {
  id: string;
  host: string | null;
  name: string | null;
  profile: string | null;
  utilization: number | null;
  memory_used: number | null;
  memory_total: number | null;
  power: number | null;
  tensor: number | null;
  dram: number | null;
  source: string;
}

export interface IModelLoad {
  name: string;
  version: string;
  inferences_per_second: number | null;
  requests_per_second: number | null;
  failures_per_second: number | null;
  batch: number | null;
  queue_ms: number | null;
  compute_ms: number | null;
  pending: number | null;
  waiting: number | null;
  executing: number | null;
}

export interface IInstance {
  id: string;
  host: string | null;
  url: string | null;
  up: boolean;
  inferences_per_second: number | null;
  share: number | null;
  busy: number | null;
  busy_estimated: boolean | null;
}

export interface IHost {
  name: string;
  cpu_utilization: number | null;
  memory_used: number | null;
  memory_total: number | null;
}

export interface IBusy {
  value: number;
  of: string;
  estimated: boolean;
}

export interface ISource {
  name: string;
  kind: string;
  age: number | null;
  error: string | null;
  retry_in: number | null;
  left_out: number;
}

export interface ISnapshot {
  time: number;
  window: number | null;
  busy: IBusy | null;
  gpus: IGpu[];
  models: IModelLoad[];
  instances: IInstance[];
  hosts: IHost[];
  sources: ISource[];
}

export interface IAdvice {
  kind: string;
  title: string;
  text: string;
}

export interface IServedModel {
  name: string;
  version: string;
  ready: boolean;
  state: string;
  inputs: string[];
  outputs: string[];
  queue_ms: number | null;
  cell: string;
}

export interface IAttempt {
  source: string;
  value: string;
  outcome: string;
  seconds: number | null;
  chosen: boolean;
}

export type FacilityState =
  | 'connected'
  | 'no-facility'
  | 'unreachable'
  | 'not-authorised'
  | 'misconfigured';

export interface IFacility {
  state: FacilityState;
  problem: string | null;
  endpoint: { url: string; urls: string[]; source: string } | null;
  user: string | null;
  identity: string;
  token_expires_at: number | null;
  token_renews: boolean;
  models: IServedModel[];
  attempts: IAttempt[];
  metrics: { configured: boolean; sources: string[]; gpu: boolean | null };
  documentation: string;
}

export interface ICluster {
  name: string;
  status: string;
  /** In seconds since the epoch. */
  started: number | null;
  workers: number | null;
  configured: number | null;
  inferences_per_second: number | null;
  oldest_token: number | null;
  dashboard: string | null;
}

export interface IClusters {
  clusters: ICluster[];
  problem: string | null;
}

/** What this user asked of a model; its name is empty for failed calls that named none. */
export interface IModelUsage {
  model: string;
  requests: number;
  inferences: number;
  failures: number;
  bytes_in: number;
  bytes_out: number;
  /** A counter began anew meanwhile, and what it missed is counted nowhere. */
  estimated: boolean;
}

export interface IUsage {
  /** Whether this facility tells it; if not, the problem says why. */
  offered: boolean;
  since: string;
  /** When it was read, in seconds since the epoch; null: never. */
  at: number | null;
  models: IModelUsage[];
  /** Why there is nothing, or nothing newer. */
  problem: string | null;
}

export interface IHistory {
  interval: number;
  snapshots: ISnapshot[];
  /** The figures; null where nothing was measured lately. */
  average: ISnapshot | null;
  advice: IAdvice | null;
}

/** Columns for charts: as long as the times, null where nothing was reported. */
export interface ITimeline {
  step: number;
  times: number[];
  busy: (number | null)[];
  cpu: (number | null)[];
  memory_used: (number | null)[];
  queue_ms: (number | null)[];
  waiting: (number | null)[];
  inferences_per_second: (number | null)[];
  gpus: {
    id: string;
    host: string | null;
    name: string | null;
    profile: string | null;
    memory_total: number | null;
    utilization: (number | null)[];
    memory_used: (number | null)[];
  }[];
  models: {
    name: string;
    version: string;
    inferences_per_second: (number | null)[];
  }[];
}

/** What a kernel tells of its connection. */
export interface ISession {
  endpoint: string | null;
  user: string | null;
  busy: boolean;
  label: string | null;
  done: number | null;
  total: number | null;
  inferences_per_second: number | null;
  inferences: number;
  /** Jets with NaN or infinite scores although their inputs are finite; older kernels do not count them. */
  not_finite?: number;
  /** During an outage: why requests are sent again, and for how long. */
  retrying?: { reason: string; left: number } | null;
  clusters: ISessionCluster[];
}

export interface ISessionCluster {
  name: string;
  state: string;
  workers: number | null;
  configured: number | null;
  inferences_per_second: number | null;
}

export type Frame =
  | {
      type: 'snapshot';
      snapshot: ISnapshot;
      /** The figures: the mean of the present run, whose length is its window. */
      average: ISnapshot;
      advice: IAdvice | null;
    }
  | { type: 'facility'; facility: IFacility }
  | ({ type: 'clusters' } & IClusters);

/** A call that failed; `status` is that of HTTP, 0 where nobody answered. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
  }
}

/** The calls, as the models use them. */
export interface IApi {
  facility(): Promise<IFacility>;
  usage(): Promise<IUsage>;
  history(seconds: number): Promise<IHistory>;
  timeline(seconds: number): Promise<ITimeline>;
}

/** What changes a cluster of the user's; the remark is the gateway's, or empty. */
export interface IClusterApi {
  scale(name: string, workers: number): Promise<{ remark: string }>;
  shutDown(name: string): Promise<{ remark: string }>;
}

/** The calls to the Jupyter server that this page came from. */
export class Api implements IApi, IClusterApi {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  facility(): Promise<IFacility> {
    return this._ask('facility');
  }

  usage(): Promise<IUsage> {
    return this._ask('usage');
  }

  history(seconds: number): Promise<IHistory> {
    return this._ask(`history?seconds=${Math.round(seconds)}`);
  }

  scale(name: string, workers: number): Promise<{ remark: string }> {
    return this._post(`clusters/${encodeURIComponent(name)}/scale`, {
      workers
    });
  }

  shutDown(name: string): Promise<{ remark: string }> {
    return this._post(`clusters/${encodeURIComponent(name)}/shutdown`, {});
  }

  timeline(seconds: number): Promise<ITimeline> {
    return this._ask(`timeline?seconds=${Math.round(seconds)}`);
  }

  /** Made anew for each connection: a token may have changed. */
  openStream(): WebSocket {
    const { wsUrl, token, appendToken, WebSocket } = this._settings;
    const query =
      appendToken && token ? `?token=${encodeURIComponent(token)}` : '';
    return new WebSocket(URLExt.join(wsUrl, NAMESPACE, 'stream') + query);
  }

  /** JupyterLab adds what its server wants against forged requests. */
  private _post<T>(path: string, content: object): Promise<T> {
    return this._ask(path, { method: 'POST', body: JSON.stringify(content) });
  }

  private async _ask<T>(path: string, init: RequestInit = {}): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, NAMESPACE, path);
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this._settings);
    } catch {
      throw new ApiError(0, 'the Jupyter server does not answer');
    }
    if (!response.ok) {
      throw new ApiError(response.status, await messageOf(response));
    }
    try {
      return await response.json();
    } catch {
      throw new ApiError(response.status, 'the answer is not JSON');
    }
  }
}

/** Why the server refused, in its own words where it has any. */
async function messageOf(response: Response): Promise<string> {
  try {
    const { message } = await response.json();
    return typeof message === 'string' && message
      ? message
      : response.statusText;
  } catch {
    return response.statusText;
  }
}
