/**
 * Outages as kernels report them while they retry their requests.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ApiError, IFacility, ISession } from '../api';
import { IEmptyState, emptyState, foundByNotebooks } from './empty';
import { clip } from './format';
import type { IConnectedNotebook } from './sessions';

/** For example "server gone, retrying, 87 s left"; null without an outage. */
export function retryingOf(
  session: ISession | null,
  trans: TranslationBundle
): string | null {
  const retrying = session?.retrying;
  return retrying
    ? trans.__(
        '%1, retrying, %2 s left',
        clip(retrying.reason, 60),
        Math.round(retrying.left)
      )
    : null;
}

/** The same for the first notebook that retries, with its name. */
export function outageOf(
  notebooks: readonly IConnectedNotebook[],
  trans: TranslationBundle
): string | null {
  for (const { notebook, session } of notebooks) {
    const retrying = retryingOf(session, trans);
    if (retrying !== null) {
      return trans.__('%1: %2', clip(notebook.title, 60), retrying);
    }
  }
  return null;
}

/**
 * The empty state, adjusted by what the notebooks report: if one of them is
 * retrying, there is a server, but it does not answer.
 */
export function emptyStateOf(
  facility: IFacility | null,
  failure: ApiError | null,
  notebooks: readonly IConnectedNotebook[],
  trans: TranslationBundle
): IEmptyState | null {
  const empty = emptyState(facility, failure, trans);
  const outage = outageOf(notebooks, trans);
  if (empty && outage !== null) {
    return {
      title: trans.__('Triton does not answer'),
      text: outage,
      help: empty.help.filter(each => each !== 'connect')
    };
  }
  return foundByNotebooks(empty, facility, notebooks, trans);
}
