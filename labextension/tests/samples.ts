/** Small values of the wire types, for tests to vary. */
import type {
  IFacility,
  IGpu,
  IModelLoad,
  IServedModel,
  ISession,
  ISnapshot,
  ITimeline
} from '../src/api';

export const gpu = (values: Partial<IGpu> = {}): IGpu => ({
  id: 'GPU-1',
  host: 'ampere-01',
  name: 'NVIDIA A100-SXM4-40GB',
  profile: null,
  utilization: null,
  memory_used: null,
  memory_total: null,
  power: null,
  tensor: null,
  dram: null,
  source: 'Prometheus',
  ...values
});

export const load = (values: Partial<IModelLoad> = {}): IModelLoad => ({
  name: 'particlenet',
  version: '1',
  inferences_per_second: null,
  requests_per_second: null,
  failures_per_second: null,
  batch: null,
  queue_ms: null,
  compute_ms: null,
  pending: null,
  waiting: null,
  executing: null,
  ...values
});

export const served = (values: Partial<IServedModel> = {}): IServedModel => ({
  name: 'particlenet',
  version: '1',
  ready: true,
  state: 'READY',
  inputs: ['points'],
  outputs: ['softmax'],
  queue_ms: null,
  owner: '',
  mine: false,
  deployed: null,
  last_used: null,
  cell: 'triton.model("particlenet")',
  ...values
});

export const snapshot = (values: Partial<ISnapshot> = {}): ISnapshot => ({
  time: 1000,
  window: 5,
  busy: null,
  gpus: [],
  models: [],
  instances: [],
  hosts: [],
  sources: [],
  ...values
});

export const facility = (values: Partial<IFacility> = {}): IFacility => ({
  state: 'connected',
  problem: null,
  endpoint: { url: 'grpcs://triton:443', urls: [], source: 'configuration' },
  user: 'alice',
  identity: 'alice, expires in 8 min',
  token_expires_at: null,
  token_renews: false,
  models: [],
  attempts: [],
  metrics: { configured: true, sources: [], gpu: null },
  documentation: '',
  ...values
});

export const session = (values: Partial<ISession> = {}): ISession => ({
  endpoint: 'grpcs://triton:443',
  user: null,
  busy: false,
  label: null,
  done: null,
  total: null,
  inferences_per_second: null,
  inferences: 0,
  clusters: [],
  ...values
});

export const failing = (name: string, retry_in: number) => ({
  name,
  kind: 'Triton',
  age: 14,
  error: 'connection refused',
  retry_in,
  left_out: 0
});

/** The server's columns at these times, without values. */
export const columnsOf = (
  times: number[],
  values: Partial<ITimeline> = {}
): ITimeline => ({
  step: 1,
  times,
  busy: times.map(() => null),
  cpu: times.map(() => null),
  memory_used: times.map(() => null),
  queue_ms: times.map(() => null),
  waiting: times.map(() => null),
  inferences_per_second: times.map(() => null),
  gpus: [],
  models: [],
  ...values
});
