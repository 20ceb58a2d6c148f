/**
 * What this user had of the facility in the last day.
 */
import type { IApi, IModelUsage, IUsage } from '../api';
import { AskedModel } from './asked';

/** Milliseconds; the second after failures. */
const EVERY: [number, number] = [60000, 600000];

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

export class UsageModel extends AskedModel<IUsage> {
  constructor(api: IApi) {
    super('usage', () => api.usage(), EVERY);
  }
}
