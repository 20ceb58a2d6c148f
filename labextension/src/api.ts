/**
 * Typed calls to the server extension, and the types of all that it, the kernels
 * and the widget send. The types come from eaf_inference/server/openapi.yaml.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { components } from './wire';

const NAMESPACE = 'eaf-inference/api';

type Schemas = components['schemas'];

export type IAdvice = Schemas['Advice'];
export type IAttempt = Schemas['Attempt'];
export type ICluster = Schemas['Cluster'];
export type IClusterChange = Schemas['ClusterChange'];
export type IClusters = Schemas['ClustersFrame'];
export type IFacility = Schemas['Facility'];
export type IGpu = Schemas['Gpu'];
export type IHistory = Schemas['History'];
export type IModelLoad = Schemas['ModelLoad'];
export type IModelUsage = Schemas['ModelUsage'];
export type IOwnedUsage = Schemas['OwnedUsage'];
export type IServedModel = Schemas['ServedModel'];
export type ISession = Schemas['Session'];
export type ISnapshot = Schemas['Snapshot'];
export type ISource = Schemas['Source'];
export type ITimeline = Schemas['Timeline'];
export type IUsage = Schemas['Usage'];
export type IWidgetPoint = Schemas['WidgetPoint'];
export type IWidgetPresence = Schemas['WidgetPresence'];
export type IWidgetQuestion = Schemas['WidgetQuestion'];
export type IWidgetTraits = Schemas['WidgetTraits'];
export type FacilityState = IFacility['state'];

/** What the server sends over the websocket. */
export type Frame =
  | Schemas['SnapshotFrame']
  | Schemas['FacilityFrame']
  | Schemas['ClustersFrame'];

/** What the page sends over the websocket. */
export type IStreamRequest = Required<Schemas['StreamRequest']>;

/** A call that failed; `status` is the HTTP status, or 0 without an answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
  }
}

/** Calls that only read, as the models use them. */
export interface IApi {
  facility(): Promise<IFacility>;
  usage(): Promise<IUsage>;
  history(seconds: number): Promise<IHistory>;
  timeline(seconds: number): Promise<ITimeline>;
}

/** Calls that change one of the user's clusters. */
export interface IClusterApi {
  scale(name: string, workers: number): Promise<IClusterChange>;
  shutDown(name: string): Promise<IClusterChange>;
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

  scale(name: string, workers: number): Promise<IClusterChange> {
    return this._post(`clusters/${encodeURIComponent(name)}/scale`, {
      workers
    });
  }

  shutDown(name: string): Promise<IClusterChange> {
    return this._post(`clusters/${encodeURIComponent(name)}/shutdown`, {});
  }

  timeline(seconds: number): Promise<ITimeline> {
    return this._ask(`timeline?seconds=${Math.round(seconds)}`);
  }

  /** A new socket per connection, because the token may have changed. */
  openStream(): WebSocket {
    const { wsUrl, token, appendToken, WebSocket } = this._settings;
    const query =
      appendToken && token ? `?token=${encodeURIComponent(token)}` : '';
    return new WebSocket(URLExt.join(wsUrl, NAMESPACE, 'stream') + query);
  }

  /** `makeRequest` adds the XSRF header. */
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

/** The server's reason for an error, else the text of the HTTP status. */
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
